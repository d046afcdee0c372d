"""Which of equal hashes, and of near duplicates, comes first in the input.

datatrove's own finders compare the numbers of documents in their files before those of the files, and keep whichever of
several near duplicates has the most others joined to it. Here the first in the order of the input stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RECORDS = 1 << 22  # compared at once
_HASHES = 1 << 64

REPETITION = np.dtype(
    [("file", "<u4"), ("doc", "<u4"), ("part", "<u4"), ("first_file", "<u4"), ("first_doc", "<u4")]
)
"""A document or paragraph, by numbers, and the document in which it occurred first."""


def repetitions(
    signatures: Sequence[Path], record: np.dtype[Any], *, at_once: int = _RECORDS
) -> Iterator[NDArray[Any]]:
    """What repeats something that comes before it.

    Args:
        signatures: by number of file: records, sorted by hash.
        record: their type, with fields ``hash`` (uint64), ``doc`` and, for parts of documents, ``sent``.
        at_once: about how many records are in memory; the range of hashes is cut for that.
    Yields:
        Arrays of :data:`REPETITION`.
    """
    total = sum(path.stat().st_size for path in signatures) // record.itemsize
    ranges = max(1, -(-total // at_once))
    starts = [0] * len(signatures)
    for number in range(1, ranges + 1):
        end = _HASHES * number // ranges
        parts = []
        for file, path in enumerate(signatures):
            if not path.stat().st_size:
                continue
            records = np.memmap(path, dtype=record, mode="r")
            stop = bisect_left(records, end, lo=starts[file], key=lambda entry: int(entry["hash"]))
            parts.append((file, np.array(records[starts[file] : stop])))
            starts[file] = stop
        yield _repetitions(parts)


def _repetitions(parts: Sequence[tuple[int, NDArray[Any]]]) -> NDArray[Any]:
    count = sum(len(records) for _, records in parts)
    hashes = np.empty(count, dtype=np.uint64)
    found = np.zeros(count, dtype=REPETITION)
    place = 0
    for file, records in parts:
        here = slice(place, place + len(records))
        hashes[here], found["file"][here], found["doc"][here] = records["hash"], file, records["doc"]
        if "sent" in (records.dtype.names or ()):
            found["part"][here] = records["sent"]
        place += len(records)
    order = np.lexsort((found["part"], found["doc"], found["file"], hashes))
    hashes, found = hashes[order], found[order]
    repeats = np.zeros(count, dtype=bool)
    repeats[1:] = hashes[1:] == hashes[:-1]
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(count)))  # where each row's equals begin
    found["first_file"], found["first_doc"] = found["file"][first], found["doc"][first]
    return found[repeats]


def clusters(pairs: Sequence[Path]) -> NDArray[Any]:
    """The near duplicates to remove, in the order of the input, each with the first document of its cluster.

    Args:
        pairs: files of pairs of documents, each two pairs of numbers of file and document, uint32.
    Returns:
        Array of :data:`REPETITION`.
    """
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    for path in pairs:
        documents = np.fromfile(path, dtype="<u4").reshape(-1, 2, 2).astype(np.uint64)
        for one, other in ((documents[:, :, 0] << np.uint64(32)) | documents[:, :, 1]).tolist():
            first, second = sorted((root(one), root(other)))
            parent[second] = first
    rows = [(node, first) for node in sorted(parent) if (first := root(node)) != node]
    found = np.zeros(len(rows), dtype=REPETITION)
    nodes = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    found["file"], found["doc"] = nodes[:, 0] >> np.uint64(32), nodes[:, 0] & np.uint64(0xFFFFFFFF)
    found["first_file"], found["first_doc"] = (
        nodes[:, 1] >> np.uint64(32),
        nodes[:, 1] & np.uint64(0xFFFFFFFF),
    )
    return found
