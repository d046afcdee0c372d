"""Stages run once, and again only when something they depend on has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.quickstart.stage_book import Stage, StageBook


class Way:
    """Three stages that record what they did; each makes one file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.done: list[str] = []
        self.found: dict[str, bool] = {}
        self.inputs = {"a": 1, "b": 1, "c": 1}
        self.interrupt_in: str | None = None

    def action(self, name: str) -> Callable[[], None]:
        def act() -> None:
            self.found[name] = (self.directory / name).exists()
            (self.directory / name).write_text("begun")
            if self.interrupt_in == name:
                raise KeyboardInterrupt
            self.done.append(name)

        return act

    def walk(self) -> list[str]:
        """Run all stages; return the names of those that did something."""
        self.done = []
        book = StageBook(self.directory, 3)
        for name, value in self.inputs.items():
            book.run(Stage(name, name, {"value": value}, [self.directory / name], self.action(name)))
        return self.done


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return Way(tmp_path)


def test_nothing_is_done_twice(way: Way) -> None:
    assert way.walk() == ["a", "b", "c"]
    assert way.walk() == []


def test_a_changed_input_redoes_its_stage_and_those_after_it(way: Way) -> None:
    way.walk()
    way.inputs["b"] = 2
    assert way.walk() == ["b", "c"]
    assert way.found == {"a": False, "b": False, "c": False}, "outputs of other inputs are removed first"


def test_a_missing_output_redoes_its_stage_and_those_after_it(way: Way) -> None:
    way.walk()
    (way.directory / "b").unlink()
    assert way.walk() == ["b", "c"]


def test_an_interrupted_stage_finds_what_it_had_begun(way: Way) -> None:
    way.interrupt_in = "b"
    with pytest.raises(KeyboardInterrupt):
        way.walk()
    way.interrupt_in = None
    assert way.walk() == ["b", "c"]
    assert way.found["b"]


def test_an_interrupted_stage_with_other_inputs_starts_clean(way: Way) -> None:
    way.interrupt_in = "b"
    with pytest.raises(KeyboardInterrupt):
        way.walk()
    way.interrupt_in, way.inputs["b"] = None, 2
    way.walk()
    assert not way.found["b"]


def test_a_damaged_book_only_costs_time(way: Way) -> None:
    way.walk()
    (way.directory / "stages.json").write_text("{")
    assert way.walk() == ["a", "b", "c"]
