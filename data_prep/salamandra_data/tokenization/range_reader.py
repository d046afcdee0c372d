"""Reading the documents of a key range out of many runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from salamandra_data.tokenization.document_hash import KEY_RANGE
from salamandra_data.tokenization.run_file import KEY_BYTES, PLACE, Group, Run, damaged_error


@dataclass(frozen=True)
class Documents:
    """Documents in their final order.

    Attributes:
        texts: UTF-8.
        labels: source and licence of each, as of :func:`label_of`.
        keys: [documents], uint64.
        files: [documents], numbers of their input files.
        lines: [documents], where they are in these.
        fast: [documents], whether a fast encoder may have them.
    """

    texts: list[bytes]
    labels: list[bytes]
    keys: NDArray[np.uint64]
    files: NDArray[np.uint32]
    lines: NDArray[np.uint64]
    fast: NDArray[np.bool_]


class RangeReader:
    """Reads the documents of a group by ranges of keys, out of many runs.

    Documents with the same key stay in the order of files and lines, which is the order of the runs. A context
    manager: it keeps the files of the runs open, so that the system sees each of them read from front to back and
    reads ahead.

    Args:
        runs: all runs, in the order of the files they were made of.
        group: language and split.
        bounds: rising keys between 0 and ``2**64``; part ``i`` lies between bounds ``i`` and ``i + 1``.
    Raises:
        DataError: a run is missing or damaged.
    """

    def __init__(self, runs: Sequence[Run], group: Group, bounds: Sequence[int]) -> None:
        self._runs = [run for run in runs if group in run.groups]
        self._group, self._bounds = group, bounds
        self._stack = ExitStack()
        try:
            self._files = [self._opened(run) for run in self._runs]
        except BaseException:
            self._stack.close()
            raise
        # 8 bytes for each run and part: for 512 runs and parts of 32 MiB, a part of 8,192 of the text.
        rows = [_rows(run, group, bounds) for run in self._runs]
        self._rows = np.array(rows, dtype=np.int64).reshape(len(self._runs), len(bounds))

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def documents_between(self, first_key: int, last_key: int) -> int:
        """How many documents have keys from ``first_key`` up to ``last_key``, exclusive."""
        rows = (_rows(run, self._group, (first_key, last_key)) for run in self._runs)
        return sum(int(last - first) for first, last in rows)

    def part(self, part: int) -> Documents:
        """The documents of a part in their final order.

        Raises:
            DataError: a run is damaged.
        """
        keys, places, content, starts = self._sorted(part)
        middles = starts + places["text_bytes"].astype(np.int64)
        return Documents(
            texts=_slices(content, starts, middles),
            labels=_slices(content, middles, middles + places["label_bytes"]),
            keys=keys,
            files=places["file"],
            lines=places["line"],
            fast=places["fast"],
        )

    def records(self, part: int) -> tuple[NDArray[np.uint64], NDArray[np.void], list[bytes]]:
        """Keys, places and records of a part in their final order, as :meth:`RunFile.add` takes them."""
        keys, places, content, starts = self._sorted(part)
        sizes = (places["text_bytes"] + places["label_bytes"]).astype(np.int64)
        return keys, places, _slices(content, starts, starts + sizes)

    def _sorted(self, part: int) -> tuple[NDArray[np.uint64], NDArray[np.void], bytes, NDArray[np.int64]]:
        """Keys and places of a part in the order of keys, its records as they lie, and the start of each in these."""
        firsts, counts = self._rows[:, part], np.diff(self._rows[:, part : part + 2], axis=1)[:, 0]
        keys = np.empty(int(counts.sum()), dtype="<u8")
        places = np.empty(keys.size, dtype=PLACE)
        contents: list[bytes] = []
        done = 0
        for number in np.flatnonzero(counts).tolist():
            run, file, first = self._runs[number], self._files[number], int(firsts[number])
            after = done + int(counts[number])
            _read_into(run, file, keys[done:after], KEY_BYTES * first)
            _read_into(run, file, places[done:after], run.places_offset + PLACE.itemsize * first)
            self._check_keys(run, part, keys[done:after])
            begin, last = int(places["start"][done]), places[after - 1]
            size = int(last["start"]) + int(last["text_bytes"]) + int(last["label_bytes"]) - begin
            if not 0 <= size <= run.groups[self._group].record_bytes:
                raise damaged_error(run.path, "its places are not those that were written")
            contents.append(_read(run, file, size, run.records_offset + begin))
            done = after
        content = b"".join(contents)
        sizes = (places["text_bytes"] + places["label_bytes"]).astype(np.int64)
        if int(sizes.sum()) != len(content):
            raise damaged_error(
                self._runs[0].path.parent, "places of documents are not those that were written"
            )
        order = np.argsort(keys, kind="stable")
        return keys[order], places[order], content, (np.cumsum(sizes) - sizes)[order]

    def _check_keys(self, run: Run, part: int, keys: NDArray[np.uint64]) -> None:
        low, high = self._bounds[part : part + 2]
        if not low <= int(keys[0]) <= int(keys[-1]) < high:
            raise damaged_error(run.path, "its keys are not those that were written")

    def _opened(self, run: Run) -> int:
        try:
            file = os.open(run.path, os.O_RDONLY)
        except OSError as error:
            raise damaged_error(run.path, error.strerror or str(error)) from error
        self._stack.callback(os.close, file)
        if (size := os.fstat(file).st_size) != run.file_bytes:
            raise damaged_error(run.path, f"it has {size:,} bytes, {run.file_bytes:,} were written")
        return file


def first_documents(runs: Sequence[Run], group: Group, group_bytes: int, text_bytes: int) -> list[Documents]:
    """Documents at the front of the order, ``text_bytes`` or more if there are: the same for any cutting into runs.

    Args:
        runs: all runs.
        group: language and split.
        group_bytes: of all its texts.
        text_bytes: of the texts wanted; texts are read in ranges of about that size and twice, four times ... that.
    """
    ends = [max(1, KEY_RANGE * text_bytes // group_bytes)]
    while ends[-1] < KEY_RANGE:
        ends.append(2 * ends[-1])
    parts: list[Documents] = []
    size = 0
    with RangeReader(runs, group, [0, *(min(end, KEY_RANGE) for end in ends)]) as reader:
        for number in range(len(ends)):
            if size >= text_bytes:
                break
            parts.append(reader.part(number))
            size += sum(map(len, parts[-1].texts))
    return parts


def _rows(run: Run, group: Group, bounds: Sequence[int]) -> NDArray[np.int64]:
    """The first document of ``group`` in the run at or above each bound."""
    inside = np.array([min(bound, KEY_RANGE - 1) for bound in bounds], dtype=np.uint64)
    rows = run.rows_below(group, inside)
    rows[[bound >= KEY_RANGE for bound in bounds]] = run.groups[group].last
    return rows


def _slices(content: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[bytes]:
    return [content[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _read(run: Run, file: int, count: int, offset: int) -> bytes:
    raw = os.pread(file, count, offset)
    while len(raw) < count:  # one call gives 2 GiB at most
        more = os.pread(file, count - len(raw), offset + len(raw))
        if not more:
            raise damaged_error(run.path, "it ends too early")
        raw += more
    return raw


def _read_into(run: Run, file: int, array: NDArray[np.void] | NDArray[np.uint64], offset: int) -> None:
    view = array.view(np.uint8).data
    if os.preadv(file, [view], offset) != len(view):
        raise damaged_error(run.path, "it ends too early")
