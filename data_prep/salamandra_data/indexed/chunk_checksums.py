"""SHA-256 of each 64 MiB of a stream."""

from __future__ import annotations

import hashlib

CHUNK_BYTES = 64 << 20


class ChunkChecksums:
    """Checksums of consecutive chunks of a stream that arrives in pieces of any size."""

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._finished: list[str] = []
        self._current = hashlib.sha256()
        self._filled = 0

    def update(self, raw: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(raw)
        while view:
            part = view[: self._chunk_bytes - self._filled]
            self._current.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._chunk_bytes:
                self._finished.append(self._current.hexdigest())
                self._current, self._filled = hashlib.sha256(), 0

    def digests(self) -> tuple[str, ...]:
        """One checksum per chunk so far; the last one may be of a shorter chunk."""
        return (*self._finished, self._current.hexdigest()) if self._filled else tuple(self._finished)
