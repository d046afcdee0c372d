"""Sorted runs: documents on disk in the order of group and shuffle key, so that a key range is one slice."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salamandra_data.atomic_write import write_error
from salamandra_data.readers import Document
from salamandra_data.tokenization.document_hash import KEY_RANGE

RUN_BYTES = 64 << 20
_KEY_BITS = KEY_RANGE.bit_length() - 1
_RECORD = struct.Struct("<QQQHH")  # key, line, bytes of text, of source, of licence
_RECORD_OVERHEAD_BYTES = 200  # of the objects that hold a record in memory

Group = tuple[str, str]
"""Language and split."""


@dataclass(frozen=True)
class Run:
    """One run on disk: the records, and beside them a row of keys and a row of record starts.

    ``groups`` holds the first and last (exclusive) record of each group.
    """

    path: Path
    file_number: int
    groups: dict[Group, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Record:
    """A document and its place in the shuffle; the order of the fields is the order of the documents."""

    key: int
    file_number: int
    line: int
    text: bytes
    source: str | None
    licence: str | None


class RunWriter:
    """Collects documents of one input file and writes a run whenever ``run_bytes`` are together."""

    def __init__(self, directory: Path, file_number: int, run_bytes: int = RUN_BYTES) -> None:
        self.runs: list[Run] = []
        self._directory, self._file_number, self._run_bytes = directory, file_number, run_bytes
        self._held: list[tuple[Group, int, Document]] = []
        self._held_bytes = 0

    def add(self, group: Group, key: int, document: Document) -> None:
        """Take one document."""
        self._held.append((group, key, document))
        self._held_bytes += len(document.text) + _RECORD_OVERHEAD_BYTES
        if self._held_bytes >= self._run_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one run.

        Raises:
            DataError: the disk is full or refuses.
        """
        if not self._held:
            return
        self._held.sort(key=lambda held: (held[0], held[1], held[2].line))
        path = self._directory / f"run-{self._file_number:06d}-{len(self.runs):06d}"
        keys = np.fromiter((key for _, key, _ in self._held), dtype="<u8", count=len(self._held))
        starts = np.zeros(len(self._held) + 1, dtype="<u8")
        groups: dict[Group, tuple[int, int]] = {}
        try:
            with open(path, "wb") as stream:
                for number, (group, key, document) in enumerate(self._held):
                    source, licence = _encoded(document.source), _encoded(document.licence)
                    head = _RECORD.pack(key, document.line, len(document.text), len(source), len(licence))
                    stream.write(b"".join((head, document.text, source, licence)))
                    starts[number + 1] = starts[number] + np.uint64(
                        _RECORD.size + len(document.text) + len(source) + len(licence)
                    )
                    groups[group] = (groups.get(group, (number, 0))[0], number + 1)
            np.save(_keys_path(path), keys)
            np.save(_starts_path(path), starts)
        except OSError as error:
            raise write_error(path, error) from error
        self.runs.append(Run(path, self._file_number, groups))
        self._held, self._held_bytes = [], 0


class RangeReader:
    """Reads the documents of a group by ranges of keys, out of many runs.

    Args:
        runs: all runs.
        group: language and split.
        bounds: rising keys between 0 and ``2**64``; part ``i`` lies between bounds ``i`` and ``i + 1``.
    """

    def __init__(self, runs: list[Run], group: Group, bounds: Sequence[int]) -> None:
        self._offsets = [(run, _offsets(run, group, bounds)) for run in runs if group in run.groups]

    def part_bytes(self, part: int) -> int:
        """Size of a part on disk: its texts and a little per document."""
        return sum(int(offsets[part + 1] - offsets[part]) for _, offsets in self._offsets)

    def part(self, part: int) -> list[Record]:
        """The documents of a part in their final order."""
        records: list[Record] = []
        for run, offsets in self._offsets:
            records += _read_records(run, int(offsets[part]), int(offsets[part + 1]))
        records.sort(key=lambda record: (record.key, record.file_number, record.line))
        return records


def first_records(runs: list[Run], group: Group, text_bytes: int) -> list[Record]:
    """Documents at the front of the order, ``text_bytes`` or more if there are: the same for any cutting into runs."""
    halvings = range(_KEY_BITS, -1, -1)
    ends = [KEY_RANGE >> halving for halving in halvings]
    reader = RangeReader(runs, group, [0, *ends])
    records: list[Record] = []
    size = 0
    for part in range(len(ends)):
        if size >= text_bytes:
            break
        records += reader.part(part)
        size += reader.part_bytes(part)
    return records


def _offsets(run: Run, group: Group, bounds: Sequence[int]) -> NDArray[np.uint64]:
    """Byte offsets in the run of the first record of ``group`` at or above each bound."""
    first, last = run.groups[group]
    keys = np.load(_keys_path(run.path), mmap_mode="r")[first:last]
    starts = np.load(_starts_path(run.path), mmap_mode="r")
    inside = np.array([min(bound, KEY_RANGE - 1) for bound in bounds], dtype=np.uint64)
    places = first + np.searchsorted(keys, inside)
    places[[bound >= KEY_RANGE for bound in bounds]] = last
    offsets: NDArray[np.uint64] = np.asarray(starts[places])
    return offsets


def _read_records(run: Run, low: int, high: int) -> Iterator[Record]:
    if low == high:
        return
    with open(run.path, "rb") as stream:
        stream.seek(low)
        content = memoryview(stream.read(high - low))
    position = 0
    while position < len(content):
        key, line, text_bytes, source_bytes, licence_bytes = _RECORD.unpack_from(content, position)
        position += _RECORD.size
        parts: list[bytes] = []
        for size in (text_bytes, source_bytes, licence_bytes):
            parts.append(bytes(content[position : position + size]))
            position += size
        text, source, licence = parts
        yield Record(key, run.file_number, line, text, source.decode() or None, licence.decode() or None)


def _encoded(label: str | None) -> bytes:
    """A label in at most 65,535 bytes."""
    return (label or "").encode()[:65535].decode(errors="ignore").encode()


def _keys_path(path: Path) -> Path:
    return path.with_name(path.name + ".keys.npy")


def _starts_path(path: Path) -> Path:
    return path.with_name(path.name + ".starts.npy")
