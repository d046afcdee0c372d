"""One run on disk: documents in the order of group and shuffle key, in one file.

For ``n`` documents, little-endian, without gaps:

============== ==========================================================
bytes          content
============== ==========================================================
8 n            uint64 shuffle keys
33 n           :data:`PLACE` of each document
the rest       records: the text and the label of each document
============== ==========================================================

So documents with neighbouring keys are three slices, and a run can be written from front to back without holding it,
once ``n`` is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from salamandra_data.errors import DataError

Group = tuple[str, str]
"""Language and split."""

Item = TypeVar("Item")


def _from_pairs(value: Any) -> Any:
    return {tuple(group): item for group, item in value} if isinstance(value, list) else value


ByGroup = Annotated[
    dict[Group, Item], BeforeValidator(_from_pairs), PlainSerializer(lambda by_group: list(by_group.items()))
]
"""What there is of each group; in JSON, whose keys are text, a list of pairs."""

PLACE = np.dtype(
    [
        ("start", "<u8"),  # of the record among the run's records
        ("text_bytes", "<u8"),
        ("line", "<u8"),
        ("file", "<u4"),
        ("label_bytes", "<u4"),
        ("fast", "?"),  # whether a fast encoder may have it
    ]
)
KEY_BYTES = 8
_WRITE_BYTES = 1 << 20
_REMEMBERED_CHARACTERS = 1000
_BETWEEN = "\n"  # no name of a source or licence holds one: it is printable


def label_of(source: str | None, licence: str | None) -> bytes:
    """Source and licence as they are kept behind a text; empty for none of both."""
    if len(source or "") + len(licence or "") > _REMEMBERED_CHARACTERS:
        return _label(source, licence)
    return _remembered_label(source, licence)


def _label(source: str | None, licence: str | None) -> bytes:
    return f"{source or ''}{_BETWEEN}{licence or ''}".encode() if source or licence else b""


_remembered_label = lru_cache(maxsize=1024)(_label)


def names_of(label: bytes) -> tuple[str | None, str | None]:
    """Source and licence of a label."""
    source, _, licence = label.decode().partition(_BETWEEN)
    return source or None, licence or None


class Rows(NamedTuple):
    """The documents of one group in a run: the first, the last (exclusive), and the bytes of their records."""

    first: int
    last: int
    record_bytes: int


@dataclass(frozen=True)
class Run:
    """A finished run: its file, its number of documents, and where each group is in it."""

    path: Path
    documents: int
    groups: ByGroup[Rows]

    @property
    def places_offset(self) -> int:
        """First byte of the places."""
        return KEY_BYTES * self.documents

    @property
    def records_offset(self) -> int:
        """First byte of the records."""
        return self.places_offset + PLACE.itemsize * self.documents

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self.records_offset + sum(rows.record_bytes for rows in self.groups.values())

    def sizes(self, group: Group) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Keys, rising, and bytes of the texts of a group: both [documents of the group], uint64."""
        first, last, _ = self.groups[group]
        places = np.memmap(
            self.path, dtype=PLACE, mode="r", offset=self.places_offset, shape=(self.documents,)
        )
        return np.array(self._keys()[first:last]), np.array(places["text_bytes"][first:last])

    def rows_below(self, group: Group, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each of ``keys`` the first document of ``group`` whose key is not below it, int64."""
        first, last, _ = self.groups[group]
        return first + np.searchsorted(self._keys()[first:last], keys)

    def _keys(self) -> NDArray[np.uint64]:
        return np.memmap(self.path, dtype="<u8", mode="r", shape=(self.documents,))


class RunFile:
    """Writes a run of ``documents`` documents; a context manager that closes its file.

    Raises:
        DataError: the disk is full or refuses.
    """

    def __init__(self, path: Path, documents: int) -> None:
        self.path, self._documents = path, documents
        self._groups: dict[Group, Rows] = {}
        self._written = self._record_bytes = 0
        self._stack = ExitStack()
        layout = Run(path, documents, {})
        try:
            path.write_bytes(b"")
            self._keys, self._places, self._records = (
                self._stack.enter_context(open(path, "r+b", buffering=_WRITE_BYTES))  # noqa: SIM115
                for _ in range(3)
            )
            self._places.seek(layout.places_offset)
            self._records.seek(layout.records_offset)
        except OSError as error:
            self._stack.close()
            raise scratch_error(path, error) from error

    def __enter__(self) -> RunFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
        except OSError as refused:
            if kind is None:
                raise scratch_error(self.path, refused) from refused

    def add(
        self,
        group: Group,
        keys: NDArray[np.uint64],
        places: NDArray[np.void],
        records: Iterable[bytes | memoryview],
    ) -> None:
        """Append documents of a group, which comes after those that were added before.

        Args:
            group: language and split.
            keys: [documents], uint64, rising, and not below those of the group that are there.
            places: [documents], :data:`PLACE`; ``start`` is filled in here.
            records: [documents], text and label of each, or pieces of these in the same order.
        """
        sizes = places["text_bytes"] + places["label_bytes"]
        places["start"] = np.uint64(self._record_bytes) + np.cumsum(sizes) - sizes
        try:
            self._keys.write(keys.astype("<u8").data)
            self._places.write(places.data)
            self._records.writelines(records)
        except OSError as error:
            raise scratch_error(self.path, error) from error
        added = int(sizes.sum())
        rows = self._groups.get(group, Rows(self._written, self._written, 0))
        self._written += keys.size
        self._record_bytes += added
        self._groups[group] = Rows(rows.first, self._written, rows.record_bytes + added)

    def run(self) -> Run:
        """What was written, once all of it is."""
        if self._written != self._documents:
            raise ValueError(f"{self.path}: {self._written} documents came, {self._documents} were announced")
        return Run(self.path, self._documents, self._groups)


def scratch_error(path: Path, error: OSError) -> DataError:
    """That a file of the intermediate copy of the text could not be written, and what would help."""
    return DataError(
        f"{path}: cannot be written: {error.strerror or error}\n"
        "  the intermediate copy of the text takes about as much space as the text: free space, or name a directory on "
        "another disk with --scratch, then run the command again; finished shards stay"
    )


def damaged_error(path: Path, reason: str) -> DataError:
    """That a part of the intermediate work is not what was written, and what would help."""
    return DataError(
        f"{path}: this part of the intermediate copy of the text cannot be used: {reason}\n"
        "  check the disk of --scratch, and run the command again; finished shards stay"
    )
