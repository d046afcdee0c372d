"""Collecting documents and writing them as sorted runs, few enough to be read together.

A run is as large as a worker's memory allows, and a key range of the second pass as large again; out of ``r`` runs it
is read in ``r`` pieces. So the number of runs is bounded, whatever the size of the input: for that a part of the runs
is merged, each text copied once as long as there are no more than ``FAN_IN`` runs to each that may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salamandra_data.tokenization.document_hash import even_bounds
from salamandra_data.tokenization.range_reader import RangeReader
from salamandra_data.tokenization.run_file import PLACE, Group, Run, RunFile

RUN_BYTES = 64 << 20
FAN_IN = 512  # files open at once; a process may usually have 1,024
_MERGED_PART_BYTES = 32 << 20
_DOCUMENT_OVERHEAD_BYTES = 250  # of what holds a document in memory, and sorts it


@dataclass(frozen=True)
class CollectedDocuments:
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
        self._collected: dict[Group, list[CollectedDocuments]] = {}
        self._collected_bytes = 0

    def add(self, group: Group, documents: CollectedDocuments) -> None:
        """Take documents of a group; those of files and lines that come later, later.

        Raises:
            DataError: the disk is full or refuses.
        """
        self._collected.setdefault(group, []).append(documents)
        self._collected_bytes += len(documents.records) + _DOCUMENT_OVERHEAD_BYTES * documents.keys.size
        if self._collected_bytes >= self._run_bytes:
            self._flush()

    def finish(self, most: int, check_stop: Callable[[], None]) -> list[Run]:
        """All documents in at most ``most`` runs, those of files and lines that come later in later runs.

        Args:
            most: 1 or more.
            check_stop: called now and then while runs are merged, to raise if the work is to stop.
        Raises:
            DataError: the disk is full or refuses.
        """
        self._flush()
        merge_consecutive(self._runs, most, self._next_path, check_stop)
        return self._runs

    def _flush(self) -> None:
        if not self._collected:
            return
        documents = sum(part.keys.size for parts in self._collected.values() for part in parts)
        with RunFile(self._next_path(), documents) as file:
            for group in sorted(self._collected):
                file.add(group, *_sorted(self._collected.pop(group)))
        self._runs.append(file.run())
        self._collected_bytes = 0

    def _next_path(self) -> Path:
        self._files += 1
        return self._directory / f"{self._name}-{self._files:06d}"


def _sorted(
    parts: list[CollectedDocuments],
) -> tuple[NDArray[np.uint64], NDArray[np.void], Iterator[memoryview]]:
    """Keys, places and records of one group in the order of keys; equal keys stay in the order in which they came."""
    keys = np.concatenate([part.keys for part in parts])
    places = np.zeros(keys.size, dtype=PLACE)
    for name, of_parts in (
        ("line", [part.lines for part in parts]),
        ("text_bytes", [part.text_bytes for part in parts]),
        ("label_bytes", [part.label_bytes for part in parts]),
        ("fast", [part.fast for part in parts]),
    ):
        places[name] = np.concatenate(of_parts)
    places["file"] = np.repeat([part.file for part in parts], [part.keys.size for part in parts])
    order = np.argsort(keys, kind="stable")
    records = list(chain.from_iterable(map(_cut, parts)))
    return keys[order], places[order], (records[number] for number in order.tolist())


def _cut(part: CollectedDocuments) -> Iterator[memoryview]:
    view = memoryview(part.records)
    ends = np.cumsum(part.text_bytes + part.label_bytes).tolist()
    return (view[start:end] for start, end in pairwise([0, *ends]))


def merge_consecutive(
    runs: list[Run], most: int, next_path: Callable[[], Path], check_stop: Callable[[], None]
) -> None:
    """Replace as few of ``runs`` as will do by merged ones, until there are ``most``; the order stays.

    Args:
        runs: changed in place; the files of merged runs are removed.
        most: 1 or more.
        next_path: of a new run.
        check_stop: called now and then, to raise if the work is to stop.
    Raises:
        DataError: the disk is full or refuses, or a run is damaged.
    """
    place = 0
    while (excess := len(runs) - most) > 0:
        count = (excess - 1) % (FAN_IN - 1) + 2  # then all that come later are of FAN_IN runs
        if place + count > len(runs):
            place = 0
        runs[place : place + count] = [_merged(runs[place : place + count], next_path(), check_stop)]
        place += 1


def _merged(runs: Sequence[Run], path: Path, check_stop: Callable[[], None]) -> Run:
    with RunFile(path, sum(run.documents for run in runs)) as file:
        for group in sorted({group for run in runs for group in run.groups}):
            size = sum(run.groups[group].record_bytes for run in runs if group in run.groups)
            bounds = even_bounds(-(-size // _MERGED_PART_BYTES))
            with RangeReader(runs, group, bounds) as reader:
                for part in range(len(bounds) - 1):
                    check_stop()
                    file.add(group, *reader.records(part))
    merged = file.run()
    for run in runs:
        run.path.unlink(missing_ok=True)
    return merged
