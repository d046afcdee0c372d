"""Blocks of shards compared with their checksums while a run reads from them.

A window of some kilobytes is read from a block of 64 MiB, so not every first reading can wait for its block: a block is
looked at in one of its first readings, as a rate in bytes allows, by whichever thread reads ahead, and by the one data
rank to which it is dealt. So windows of a block may be trained on before it is looked at. A blend whose files have no
more than 64 MiB together is looked at before anything in it is trained on.
"""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from salamandra_data.blend_plan import ShardRef
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard, ShardManifest, bin_path, idx_path, manifest_path
from salamandra_data.storage import Location, RandomAccess, size_of

AHEAD_BYTES = 64 << 20
"""What may be looked at at once, after a while in which nothing was: a block."""

_READ_BYTES = 4 << 20
_INDEX = -1  # in place of the number of a block


class BlockChecks:
    """Which blocks were looked at, and how fast more may be. Safe to use from several threads.

    Args:
        bytes_per_second: of this process; 0 looks at nothing.
        rank, ranks: of the processes that read one stream. Blocks of full size are dealt to them, so that each is
            looked at once; smaller ones each process looks at for itself.
        clock: seconds.
    """

    def __init__(
        self,
        bytes_per_second: float,
        rank: int = 0,
        ranks: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._rank, self._ranks, self._clock = bytes_per_second, rank, ranks, clock
        self._balance, self._counted_at = float(AHEAD_BYTES), clock()
        self._shards: dict[Location, _CheckedShard] = {}
        self._failure: DataError | None = None
        self._lock = threading.Lock()

    def before_reading(self, reference: ShardRef, file: RandomAccess, position: int, count: int) -> None:
        """Look at the index and the blocks that hold ``count`` bytes from ``position`` on, if it is their turn.

        Args:
            reference: of the shard, as its plan counted it.
            file: its ``.bin``.
        Raises:
            DataError: one of them is not what was written; again at each further call.
        """
        if self._failure is not None:
            raise self._failure
        if self._rate == 0 or count == 0:
            return
        shard = self._shards.get(reference.path)
        if shard is None:
            shard = _CheckedShard(reference)
            with self._lock:
                shard = self._shards.setdefault(reference.path, shard)
        for block in (_INDEX, *shard.blocks(position, count)):
            if self._is_due(shard, block):
                try:
                    shard.check(block, file)
                except DataError as error:
                    self._failure = error
                    raise
                with self._lock:
                    shard.seen.add(block)

    def _is_due(self, shard: _CheckedShard, block: int) -> bool:
        """Whether a block is to be looked at now; another thread that reads from it meanwhile looks as well."""
        if block in shard.seen:
            return False
        size = shard.bytes_of(block)
        dealt = (zlib.crc32(shard.reference.idx_sha256.encode()) + block) % self._ranks
        with self._lock:
            if block in shard.seen:
                return False
            if size >= AHEAD_BYTES and dealt != self._rank:
                shard.seen.add(block)
                return False
            now = self._clock()
            self._balance = min(float(AHEAD_BYTES), self._balance + self._rate * (now - self._counted_at))
            self._counted_at = now
            if self._balance <= 0:
                return False
            self._balance -= size
            return True


@dataclass
class _CheckedShard:
    """A shard's checksums, and the numbers of its blocks that were looked at, or are another rank's."""

    reference: ShardRef
    seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._manifest = ShardManifest.load(self.reference.path)
        if self._manifest.bin_digest != self.reference.bin_digest:
            raise DataError(
                f"{manifest_path(self.reference.path)}: its checksums are not those that the blend plan counted\n"
                "  the shard was prepared again since: make the blend plan again, or restore the shard"
            )
        self._index_bytes = size_of(idx_path(self.reference.path))

    def blocks(self, position: int, count: int) -> range:
        size = self._manifest.chunk_bytes
        return range(position // size, -(-(position + count) // size))

    def bytes_of(self, block: int) -> int:
        if block == _INDEX:
            return self._index_bytes
        size = self._manifest.chunk_bytes
        return min(size, self._manifest.bin_bytes - block * size)

    def check(self, block: int, file: RandomAccess) -> None:
        prefix = self.reference.path
        if block == _INDEX:
            IndexedShard.open(prefix).check_index(self.reference.idx_sha256)
            return
        first = block * self._manifest.chunk_bytes
        position, last = first, first + self.bytes_of(block)
        digest, buffer = hashlib.sha256(), memoryview(bytearray(min(_READ_BYTES, last - first)))
        while position < last:
            part = buffer[: last - position]
            file.read_into(part, position)
            digest.update(part)
            position += len(part)
        if digest.hexdigest() != self._manifest.bin_sha256[block]:
            raise DataError(
                f"{bin_path(prefix)}: block {block:,}, bytes {first:,} to {last:,}, does not have its checksum in "
                f"{manifest_path(prefix).name}: damaged\n"
                f"  restore the shard from another copy or prepare it again; `salamandra data verify {prefix}` tells "
                "what else is damaged"
            )
