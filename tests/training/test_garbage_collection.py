"""Ranks collect garbage together, or they wait for each other's collections in turn."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from megatron_salamandra.training.callbacks.garbage_collection import GarbageCollection
from megatron_salamandra.training.report import StepReport


@pytest.fixture
def collected() -> Iterator[list[int]]:
    """Generations of the collections since the test began."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.enable()


def report(step: int) -> StepReport:
    return StepReport(step, loss=1.0, grad_norm=1.0, lr=0.1, tokens=1, step_tokens=1)


def make_garbage() -> None:
    """As many objects as make Python collect on its own, many times over."""
    kept = [[] for _ in range(50_000)]  # type: ignore[var-annotated]
    for one in kept:
        one.append(one)


def test_nothing_is_collected_between_the_steps_that_were_asked_for(collected: list[int]) -> None:
    callback = GarbageCollection(every=3)
    callback.start()
    collected.clear()
    for step in range(1, 8):
        make_garbage()
        before = len(collected)
        callback.after_step(report(step))
        assert (len(collected) > before) == (step in (3, 6))
    assert collected == [1, 1]
    callback.close()
    make_garbage()
    assert len(collected) > 2


def test_all_objects_are_walked_through_now_and_then(collected: list[int]) -> None:
    callback = GarbageCollection(every=1)
    callback.start()
    collected.clear()
    for step in range(1, 41):
        callback.after_step(report(step))
    assert [step for step, generation in enumerate(collected, 1) if generation == 2] == [20, 40]
    callback.close()


def test_what_was_off_stays_off(collected: list[int]) -> None:
    gc.disable()
    callback = GarbageCollection(every=1)
    callback.start()
    callback.close()
    assert not gc.isenabled()
