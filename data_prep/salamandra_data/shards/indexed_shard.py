"""Reading an indexed shard, ours or one that Megatron's builder wrote."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from bisect import bisect_left
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards.layout import HEADER, IndexHeader, bin_path, idx_path, manifest_path, shard_prefix
from salamandra_data.storage import (
    BlockCache,
    CachedRemoteFile,
    Location,
    RandomAccess,
    RemotePath,
    as_location,
    open_random_access,
    size_of,
)

_CHECK_SEQUENCES = 1 << 20
_COPY_BYTES = 4 << 20

# Who reads documents reads neighbours. Training does not, and reads without a cache.
_BLOCKS = BlockCache(capacity_bytes=32 << 20)


class IndexedShard:
    """One memory-mapped shard: a row of tokens, and where its documents begin.

    Opening reads 46 bytes whatever the size of the shard, and holds no file descriptor. The
    ``.bin`` is mapped at the first :meth:`read` (one descriptor), the ``.idx`` when documents are
    asked for. What is opened from a URL is a :class:`RemoteShard`.

    Attributes:
        prefix: path or URL without ``.bin`` or ``.idx``.
        dtype: dtype of the ids on disk, little-endian.
        documents: number of documents; a document may be of several sequences in foreign shards.
        sequences: number of sequences.
        tokens: number of ids in ``.bin``.
    """

    def __init__(self, prefix: Location, header: IndexHeader, tokens: int) -> None:
        self.prefix = prefix
        self.dtype = header.dtype
        self.documents = header.documents
        self.sequences = header.sequences
        self.tokens = tokens
        self._header = header
        self._ids: NDArray[Any] | None = None

    @classmethod
    def open(cls, prefix: Location | str) -> IndexedShard:
        """Open ``PREFIX.bin`` and ``PREFIX.idx`` and check their sizes against each other.

        Raises:
            DataError: a file is missing, truncated, too long, or not an index.
        """
        place = shard_prefix(as_location(prefix))
        if isinstance(place, RemotePath):
            cls = RemoteShard
        index, data = idx_path(place), bin_path(place)
        try:
            index_bytes = size_of(index)
            with closing(open_random_access(index)) as source:
                header = IndexHeader.unpack(index, _read(source, 0, min(HEADER.size, index_bytes)))
                if index_bytes != header.file_bytes:
                    raise DataError(
                        f"{index}: {index_bytes:,} bytes, but its header announces {header.sequences:,} sequences "
                        f"and {header.documents:,} documents, which take {header.file_bytes:,}\n"
                        "  the file is truncated or damaged; prepare the shard again"
                    )
                end_bytes = _last_sequence_end(source, header)
            data_bytes = size_of(data)
            if isinstance(data, Path) and not os.access(data, os.R_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(data))
        except FileNotFoundError as error:
            missing = data if index.is_file() else index
            raise DataError(
                f"{missing}: missing, so the shard {place} cannot be opened\n"
                "  check the path, or prepare the shard again"
            ) from error
        except OSError as error:
            raise _not_readable(Path(error.filename) if error.filename else place, error) from error
        if data_bytes != end_bytes:
            problem = "truncated" if data_bytes < end_bytes else "too long"
            raise DataError(
                f"{data}: {data_bytes:,} bytes, but {index.name} says that the last sequence ends at "
                f"{end_bytes:,}: the file is {problem}\n  prepare the shard again, or copy it again from its origin"
            )
        return cls(place, header, data_bytes // header.dtype.itemsize)

    def read(self, start_token: int, count: int) -> NDArray[Any]:
        """``count`` ids from position ``start_token``, ``self.dtype``; of a local file, a read-only view of its map.

        Raises:
            DataError: the range is not inside the shard.
        """
        if start_token < 0 or count < 0 or start_token + count > self.tokens:
            raise DataError(
                f"{self.prefix}: tokens {start_token:,} to {start_token + count:,} asked for; "
                f"the shard has {self.tokens:,}"
            )
        return self._ids_at(start_token, count)

    def document(self, number: int) -> NDArray[Any]:
        """The ids of document ``number``, its end-of-document id included.

        Raises:
            DataError: there is no such document.
        """
        if not 0 <= number < self.documents:
            raise DataError(f"{self.prefix}: document {number:,} asked for; the shard has {self.documents:,}")
        start = self.document_start(number)
        return self.read(start, self.document_start(number + 1) - start)

    def document_start(self, number: int) -> int:
        """Tokens before document ``number``; all tokens for the number of documents."""
        return self._sequence_start(int(self.document_indices[number]))

    def document_from(self, token: int) -> int:
        """The first document that begins at ``token`` or later; the number of documents if none does."""
        return bisect_left(range(self.documents), token, key=self.document_start)

    def document_at(self, token: int) -> int:
        """The document that holds ``token``, found by bisection in the mapped index.

        Raises:
            DataError: the shard has no such token.
        """
        if not 0 <= token < self.tokens:
            raise DataError(f"{self.prefix}: token {token:,} asked for; the shard has {self.tokens:,}")
        return self.document_from(token + 1) - 1

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sequence, int32 [sequences]; one sequence is one document in our shards."""
        return self._index_array("<i4", HEADER.size, self.sequences)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First byte of each sequence in ``.bin``, int64 [sequences]."""
        return self._index_array("<i8", self._header.starts_offset, self.sequences)

    @property
    def document_indices(self) -> NDArray[np.int64]:
        """First sequence of each document, then the number of sequences, int64 [documents + 1]."""
        return self._index_array("<i8", self._header.documents_offset, self.documents + 1)

    def check_index(self, sha256: str) -> None:
        """Compare the whole ``.idx`` with its checksum.

        Raises:
            DataError: it is another one.
        """
        index = idx_path(self.prefix)
        if sha256_of_file(index) != sha256:
            raise DataError(
                f"{index}: its checksum is not the one in {manifest_path(self.prefix).name}: damaged\n"
                "  restore the shard from another copy, or prepare it again"
            )

    def check_structure(self) -> None:
        """Read the whole index, in bounded memory, and check it against itself.

        Raises:
            DataError: a length is not positive, a start is not the sum of the lengths before it, or
                the document indices do not rise from 0 to the number of sequences.
        """
        index = idx_path(self.prefix)
        expected_start = 0
        for first in range(0, self.sequences, _CHECK_SEQUENCES):
            lengths = self.lengths[first : first + _CHECK_SEQUENCES].astype(np.int64)
            starts = self.starts[first : first + _CHECK_SEQUENCES]
            if (lengths <= 0).any():
                bad = int((lengths <= 0).argmax())
                raise DataError(f"{index}: sequence {first + bad:,} has length {int(lengths[bad])}")
            ends = expected_start + np.cumsum(lengths) * self.dtype.itemsize
            expected = np.concatenate(([expected_start], ends[:-1]))
            if (starts != expected).any():
                bad = int((starts != expected).argmax())
                raise DataError(
                    f"{index}: sequence {first + bad:,} starts at byte {int(starts[bad]):,}, but the lengths "
                    f"before it end at byte {int(expected[bad]):,}"
                )
            expected_start = int(ends[-1])
        boundaries = self.document_indices
        if int(boundaries[0]) != 0 or int(boundaries[-1]) != self.sequences:
            raise DataError(
                f"{index}: document indices run from {int(boundaries[0])} to {int(boundaries[-1]):,}, "
                f"expected 0 to {self.sequences:,}"
            )
        for first in range(0, self.documents, _CHECK_SEQUENCES):
            steps = np.diff(boundaries[first : first + _CHECK_SEQUENCES + 1])
            if (steps < 0).any():
                raise DataError(
                    f"{index}: document {first + int((steps < 0).argmax()):,} ends before it begins"
                )

    def close(self) -> None:
        """Let go of the mapped files; views handed out stay valid, and reading maps them again."""
        self._ids = None
        self.__dict__.pop("_index_bytes", None)

    def _ids_at(self, start_token: int, count: int) -> NDArray[Any]:
        if self._ids is None:
            if self.tokens == 0:  # an empty file cannot be mapped
                self._ids = np.empty(0, dtype=self.dtype)
            else:
                self._ids = np.asarray(_mapped(bin_path(self.prefix), self.dtype))
        return self._ids[start_token : start_token + count]

    @cached_property
    def _index_bytes(self) -> NDArray[np.uint8]:
        return _mapped(idx_path(self.prefix), np.dtype(np.uint8))

    def _index_array(self, dtype: str, offset: int, count: int) -> NDArray[Any]:
        return np.frombuffer(self._index_bytes.data, dtype=dtype, count=count, offset=offset)

    def _sequence_start(self, number: int) -> int:
        """Position in tokens where a sequence starts; that of the end for ``number == sequences``."""
        if number == self.sequences:
            return self.tokens
        return int(self.starts[number]) // self.dtype.itemsize


class RemoteShard(IndexedShard):
    """As :class:`IndexedShard`, but ids are read by ranges, and the index once into an unnamed temporary file.

    All remote shards of the process keep 32 MiB of their last ranges together.
    """

    def _ids_at(self, start_token: int, count: int) -> NDArray[Any]:
        ids = np.empty(count, dtype=self.dtype)
        self._data.read_into(ids.data.cast("B"), start_token * self.dtype.itemsize)
        return ids

    @cached_property
    def _data(self) -> RandomAccess:
        data = bin_path(self.prefix)
        assert isinstance(data, RemotePath)
        return CachedRemoteFile(data, self.tokens * self.dtype.itemsize, _BLOCKS)

    @cached_property
    def _index_bytes(self) -> NDArray[np.uint8]:
        with tempfile.TemporaryFile() as copy, idx_path(self.prefix).open("rb") as stream:
            shutil.copyfileobj(stream, copy, _COPY_BYTES)
            copy.flush()
            return np.memmap(copy, dtype=np.uint8, mode="r")


def _mapped(path: Location, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        return np.memmap(str(path), dtype=dtype, mode="r")
    except OSError as error:
        raise _not_readable(path, error) from error


def _not_readable(path: Location, error: OSError) -> DataError:
    remedy = (
        "make it readable for this user" if isinstance(error, PermissionError) else "mend that, and run again"
    )
    return DataError(f"{path}: cannot be read: {error.strerror or error}\n  {remedy}")


def _last_sequence_end(source: RandomAccess, header: IndexHeader) -> int:
    """Size in bytes that the index gives to the ``.bin`` file, from its last sequence alone."""
    if header.sequences == 0:
        return 0
    length = int.from_bytes(_read(source, header.starts_offset - 4, 4), "little", signed=True)
    start = int.from_bytes(_read(source, header.documents_offset - 8, 8), "little", signed=True)
    return start + header.dtype.itemsize * length


def _read(source: RandomAccess, position: int, count: int) -> bytes:
    raw = bytearray(count)
    source.read_into(memoryview(raw), position)
    return bytes(raw)
