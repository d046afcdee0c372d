"""Batches come to the device as they were read, in one copy a step, and never late or twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from megatron_salamandra.data import DocumentRules, MicroBatch
from megatron_salamandra.data.micro_batch import micro_batch
from megatron_salamandra.platform.host import HostPlatform
from megatron_salamandra.training.device_feed import DeviceFeed, on_device

EOD = 3
FIELDS = ("tokens", "labels", "loss_mask", "position_ids", "document_bounds")


class Elsewhere(HostPlatform):
    """A device whose memory is not that of the host, and whose copies arrive late."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[int] = []

    def begin_copy(self, staged: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.copies.append(staged.numel())
        copy = torch.zeros_like(staged)

        def arrived() -> torch.Tensor:
            copy.copy_(staged)
            return copy

        return arrived


def step_of(
    number: int, micro_batches: int = 3, rows: int = 2, rules: DocumentRules | None = None
) -> list[MicroBatch]:
    windows = np.random.default_rng(number).integers(0, 9, (micro_batches * rows, 33))
    return [
        micro_batch(windows[first : first + rows], documents=rules) for first in range(0, len(windows), rows)
    ]


def assert_equal(found: list[MicroBatch], expected: list[MicroBatch]) -> None:
    assert len(found) == len(expected)
    for mine, read in zip(found, expected, strict=True):
        for name in FIELDS:
            here, there = getattr(mine, name), getattr(read, name)
            if there is None:
                assert here is None
                continue
            assert torch.equal(here, there) and here.dtype == there.dtype
            assert here.stride() == there.stride()  # so that kernels do the same
            assert here.data_ptr() != there.data_ptr()


@pytest.mark.parametrize("rules", [None, DocumentRules(EOD, True, False), DocumentRules(EOD, True, True)])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_copy_is_equal_to_the_bit_and_laid_out_alike(rules: DocumentRules | None, rows: int) -> None:
    batches = step_of(1, rows=rows, rules=rules)
    assert_equal(on_device(batches, Elsewhere()), batches)


def test_what_micro_batches_share_is_copied_once() -> None:
    platform = Elsewhere()
    on_device(step_of(1, micro_batches=8), platform)
    (size,) = platform.copies
    windows, mask, positions = 16 * 33 * 8, 2 * 32 * 4, 2 * 32 * 8
    assert size == windows + mask + positions


class Loader:
    """Hands out steps that are read at once, or not before they are asked for."""

    def __init__(self, steps: list[list[MicroBatch]], ready: list[bool]) -> None:
        self.steps, self.ready, self.asked = deque(steps), deque(ready), 0

    @property
    def is_ready(self) -> bool:
        return bool(self.steps) and self.ready.popleft()

    def next_step(self) -> list[MicroBatch]:
        self.asked += 1
        return self.steps.popleft()


def test_every_step_comes_once_and_in_order_whether_it_was_read_ahead_or_not() -> None:
    steps = [step_of(number) for number in range(6)]
    loader: Any = Loader(list(steps), [True, False, True, False, False, True])
    feed = DeviceFeed(loader, Elsewhere())
    for number, expected in enumerate(steps):
        assert_equal(feed.next_step(), expected)
        feed.look_ahead()
        before = loader.asked
        feed.look_ahead() if before > number + 1 else None
        assert loader.asked == before  # a step that is computed again asks for nothing more
    assert loader.asked == 6


def test_a_step_on_its_way_is_not_waited_for_before_it_is_needed() -> None:
    """A read that fails is told at the step that needs it."""

    class Fails(Loader):
        @property
        def is_ready(self) -> bool:
            return False

        def next_step(self) -> list[MicroBatch]:
            if len(self.steps) == 1:
                raise OSError("no shard")
            return super().next_step()

    loader: Any = Fails([step_of(1), step_of(2)], [])
    feed = DeviceFeed(loader, Elsewhere())
    feed.next_step()
    feed.look_ahead()
    with pytest.raises(OSError, match="no shard"):
        feed.next_step()
