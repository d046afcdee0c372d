"""Sorted runs: documents on disk in the order of group and shuffle key, so that a key range is one slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from salamandra_data.atomic_write import write_error
from salamandra_data.tokenization.document_hash import KEY_RANGE

RUN_BYTES = 64 << 20
_WRITE_BYTES = 1 << 20
_KEY_BITS = KEY_RANGE.bit_length() - 1
_DOCUMENT_OVERHEAD_BYTES = 250  # of what holds a document in memory, and sorts it

Group = tuple[str, str]
"""Language and split."""

Label = tuple[str | None, str | None]
"""Source and licence."""

_PLACE = np.dtype([("start", "<u8"), ("line", "<u8"), ("file", "<u4"), ("label", "<u4"), ("fast", "?")])


@dataclass(frozen=True)
class Held:
    """Documents of one input file and group before they are written, in the order of the file.

    The texts are one string of bytes: a million small ones would scatter over the memory of a process.

    Attributes:
        file: number of the input file.
        keys: [documents], uint64.
        lines: [documents], uint64.
        text: UTF-8, one document after the other.
        lengths: [documents], uint64, bytes of each.
        labels: source and licence of each.
        fast: [documents], whether a fast encoder may have them.
    """

    file: int
    keys: NDArray[np.uint64]
    lines: NDArray[np.uint64]
    text: bytes
    lengths: NDArray[np.uint64]
    labels: list[Label]
    fast: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One run on disk: the texts one after the other, and in files beside them keys, places and labels.

    ``groups`` holds the first and last (exclusive) document of each group. There is one place more than documents;
    it holds the end of the last text.
    """

    path: Path
    groups: dict[Group, tuple[int, int]]


@dataclass(frozen=True)
class Documents:
    """Documents in their final order.

    Attributes:
        texts: UTF-8.
        keys: [documents], uint64.
        files: [documents], numbers of their input files.
        lines: [documents], where they are in these.
        labels: [documents], indices into ``label_names`` of the reader.
        fast: [documents], whether a fast encoder may have them.
    """

    texts: list[bytes]
    keys: NDArray[np.uint64]
    files: NDArray[np.uint32]
    lines: NDArray[np.uint64]
    labels: NDArray[np.int64]
    fast: NDArray[np.bool_]


class RunWriter:
    """Collects documents and writes a run whenever ``run_bytes`` are together.

    Args:
        directory: for the runs.
        name: of the runs; no other writer's in this directory.
        run_bytes: size of a run, in memory.
    """

    def __init__(self, directory: Path, name: str, run_bytes: int = RUN_BYTES) -> None:
        self.runs: list[Run] = []
        self._directory, self._name, self._run_bytes = directory, name, run_bytes
        self._held: dict[Group, list[Held]] = {}
        self._held_bytes = 0

    def add(self, group: Group, documents: Held) -> None:
        """Take documents of a group; those of files and lines that come later, later."""
        self._held.setdefault(group, []).append(documents)
        self._held_bytes += len(documents.text) + _DOCUMENT_OVERHEAD_BYTES * len(documents.labels)
        if self._held_bytes >= self._run_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one run.

        Raises:
            DataError: the disk is full or refuses.
        """
        if not self._held:
            return
        path = self._directory / f"{self._name}-{len(self.runs):06d}"
        groups: dict[Group, tuple[int, int]] = {}
        labels: dict[Label, int] = {}
        keys: list[NDArray[np.uint64]] = []
        places: list[NDArray[np.void]] = []
        start = documents = 0
        try:
            with open(path, "wb", buffering=_WRITE_BYTES) as stream:
                for group in sorted(self._held):
                    texts, sorted_keys, sorted_places = _sorted(self._held.pop(group), start, labels)
                    stream.writelines(texts)
                    keys.append(sorted_keys)
                    places.append(sorted_places)
                    groups[group] = (documents, documents + len(texts))
                    documents += len(texts)
                    start += sum(map(len, texts))
            end = np.zeros(1, dtype=_PLACE)
            end["start"] = start
            np.concatenate(keys).tofile(_keys_path(path))
            np.concatenate([*places, end]).tofile(_places_path(path))
            _labels_path(path).write_bytes(orjson.dumps(list(labels)))
        except OSError as error:
            raise write_error(path, error) from error
        self.runs.append(Run(path, groups))
        self._held, self._held_bytes = {}, 0


def _sorted(
    held: list[Held], start: int, labels: dict[Label, int]
) -> tuple[list[memoryview], NDArray[np.uint64], NDArray[np.void]]:
    """Texts, keys and places of one group in the order of keys, the first text at byte ``start``.

    ``labels`` grows by those that are new.
    """
    keys = np.concatenate([part.keys for part in held])
    places = np.zeros(keys.size, dtype=_PLACE)
    places["line"] = np.concatenate([part.lines for part in held])
    places["file"] = np.repeat([part.file for part in held], [part.keys.size for part in held])
    places["label"] = [labels.setdefault(label, len(labels)) for part in held for label in part.labels]
    places["fast"] = np.concatenate([part.fast for part in held])
    order = np.argsort(keys, kind="stable")
    places = places[order]
    lengths = np.concatenate([part.lengths for part in held])[order]
    places["start"] = np.uint64(start) + np.cumsum(lengths) - lengths
    texts = [text for part in held for text in _cut(part.text, part.lengths)]
    return [texts[number] for number in order.tolist()], keys[order], places


def _cut(text: bytes, lengths: NDArray[np.uint64]) -> Iterator[memoryview]:
    view = memoryview(text)
    return (view[start:end] for start, end in pairwise([0, *np.cumsum(lengths).tolist()]))


class RangeReader:
    """Reads the documents of a group by ranges of keys, out of many runs.

    Documents with the same key stay in the order of files and lines, which is the order of the runs.

    Args:
        runs: all runs, in the order of the files they were made of.
        group: language and split.
        bounds: rising keys between 0 and ``2**64``; part ``i`` lies between bounds ``i`` and ``i + 1``.
    """

    def __init__(self, runs: list[Run], group: Group, bounds: Sequence[int]) -> None:
        self._rows = [(run, _rows(run, group, bounds)) for run in runs if group in run.groups]
        self._labels: dict[Label, int] = {}

    @property
    def label_names(self) -> list[Label]:
        """Source and licence of each label met so far."""
        return list(self._labels)

    def part(self, part: int) -> Documents:
        """The documents of a part in their final order."""
        texts: list[bytes] = []
        keys, places = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=_PLACE)]
        for run, rows in self._rows:
            first, last = rows[part], rows[part + 1]
            if first == last:
                continue
            keys.append(np.fromfile(_keys_path(run.path), "<u8", last - first, offset=first * 8))
            read = np.fromfile(
                _places_path(run.path), _PLACE, last - first + 1, offset=first * _PLACE.itemsize
            )
            texts += _read_texts(run.path, read["start"])
            known = orjson.loads(_labels_path(run.path).read_bytes())
            numbers = [
                self._labels.setdefault((source, licence), len(self._labels)) for source, licence in known
            ]
            read["label"] = np.array(numbers, dtype=np.uint32)[read["label"]]
            places.append(read[:-1])
        key, place = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(key, kind="stable")
        place = place[order]
        return Documents(
            texts=[texts[number] for number in order.tolist()],
            keys=key[order],
            files=place["file"],
            lines=place["line"],
            labels=place["label"].astype(np.int64),
            fast=place["fast"],
        )


def first_documents(runs: list[Run], group: Group, text_bytes: int) -> list[Documents]:
    """Documents at the front of the order, ``text_bytes`` or more if there are: the same for any cutting into runs."""
    ends = [KEY_RANGE >> halving for halving in range(_KEY_BITS, -1, -1)]
    reader = RangeReader(runs, group, [0, *ends])
    parts: list[Documents] = []
    size = 0
    for number in range(len(ends)):
        if size >= text_bytes:
            break
        parts.append(reader.part(number))
        size += sum(map(len, parts[-1].texts))
    return parts


def _rows(run: Run, group: Group, bounds: Sequence[int]) -> list[int]:
    """The first document of ``group`` in the run at or above each bound."""
    first, last = run.groups[group]
    keys = np.memmap(_keys_path(run.path), dtype="<u8", mode="r")[first:last]
    inside = np.array([min(bound, KEY_RANGE - 1) for bound in bounds], dtype=np.uint64)
    rows = first + np.searchsorted(keys, inside)
    rows[[bound >= KEY_RANGE for bound in bounds]] = last
    return [int(row) for row in rows]


def _read_texts(path: Path, starts: NDArray[np.uint64]) -> list[bytes]:
    places = starts.tolist()
    low = places[0]
    with open(path, "rb") as stream:
        stream.seek(low)
        content = stream.read(places[-1] - low)
    return [content[start - low : end - low] for start, end in pairwise(places)]


def _keys_path(path: Path) -> Path:
    return path.with_name(path.name + ".keys")


def _places_path(path: Path) -> Path:
    return path.with_name(path.name + ".places")


def _labels_path(path: Path) -> Path:
    return path.with_name(path.name + ".labels")
