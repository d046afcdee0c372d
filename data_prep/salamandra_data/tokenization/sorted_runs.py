"""Collecting documents and writing them as sorted runs, few enough to be read together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salamandra_data.tokenization.merged_runs import merge_consecutive
from salamandra_data.tokenization.run_file import PLACE, Group, Run, RunFile

RUN_BYTES = 64 << 20
_DOCUMENT_OVERHEAD_BYTES = 250  # of what holds a document in memory, and sorts it


@dataclass(frozen=True)
class Held:
    """Documents of one input file and group before they are written, in the order of the file.

    The texts are one string of bytes: a million small ones would scatter over the memory of a process.

    Attributes:
        file: number of the input file.
        keys: [documents], uint64.
        lines: [documents], uint64.
        records: text (UTF-8) and label of one document after the other.
        text_bytes: [documents], uint64.
        label_bytes: [documents], uint64.
        fast: [documents], whether a fast encoder may have them.
    """

    file: int
    keys: NDArray[np.uint64]
    lines: NDArray[np.uint64]
    records: bytes
    text_bytes: NDArray[np.uint64]
    label_bytes: NDArray[np.uint64]
    fast: NDArray[np.bool_]


class RunWriter:
    """Collects documents and writes a run whenever ``run_bytes`` are together.

    Args:
        directory: for the runs.
        name: of the runs; no other writer's in this directory.
        run_bytes: size of a run, in memory.
    """

    def __init__(self, directory: Path, name: str, run_bytes: int = RUN_BYTES) -> None:
        self._directory, self._name, self._run_bytes = directory, name, run_bytes
        self._runs: list[Run] = []
        self._files = 0
        self._held: dict[Group, list[Held]] = {}
        self._held_bytes = 0

    def add(self, group: Group, documents: Held) -> None:
        """Take documents of a group; those of files and lines that come later, later.

        Raises:
            DataError: the disk is full or refuses.
        """
        self._held.setdefault(group, []).append(documents)
        self._held_bytes += len(documents.records) + _DOCUMENT_OVERHEAD_BYTES * documents.keys.size
        if self._held_bytes >= self._run_bytes:
            self._flush()

    def finish(self, most: int, go_on: Callable[[], None]) -> list[Run]:
        """All documents in at most ``most`` runs, those of files and lines that come later in later runs.

        Args:
            most: 1 or more.
            go_on: called now and then while runs are merged, to raise if that is to end.
        Raises:
            DataError: the disk is full or refuses.
        """
        self._flush()
        merge_consecutive(self._runs, most, self._next_path, go_on)
        return self._runs

    def _flush(self) -> None:
        if not self._held:
            return
        documents = sum(part.keys.size for parts in self._held.values() for part in parts)
        with RunFile(self._next_path(), documents) as file:
            for group in sorted(self._held):
                file.add(group, *_sorted(self._held.pop(group)))
        self._runs.append(file.run())
        self._held_bytes = 0

    def _next_path(self) -> Path:
        self._files += 1
        return self._directory / f"{self._name}-{self._files:06d}"


def _sorted(held: list[Held]) -> tuple[NDArray[np.uint64], NDArray[np.void], Iterator[memoryview]]:
    """Keys, places and records of one group in the order of keys; equal keys stay in the order in which they came."""
    keys = np.concatenate([part.keys for part in held])
    places = np.zeros(keys.size, dtype=PLACE)
    for name, of_parts in (
        ("line", [part.lines for part in held]),
        ("text_bytes", [part.text_bytes for part in held]),
        ("label_bytes", [part.label_bytes for part in held]),
        ("fast", [part.fast for part in held]),
    ):
        places[name] = np.concatenate(of_parts)
    places["file"] = np.repeat([part.file for part in held], [part.keys.size for part in held])
    order = np.argsort(keys, kind="stable")
    records = list(chain.from_iterable(map(_cut, held)))
    return keys[order], places[order], (records[number] for number in order.tolist())


def _cut(part: Held) -> Iterator[memoryview]:
    view = memoryview(part.records)
    ends = np.cumsum(part.text_bytes + part.label_bytes).tolist()
    return (view[start:end] for start, end in pairwise([0, *ends]))
