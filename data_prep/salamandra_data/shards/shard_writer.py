"""Writing an indexed shard that appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.foundation.atomic_files import sync_directory, write_error
from salamandra_data.errors import DataError
from salamandra_data.shards.layout import (
    IndexHeader,
    bin_path,
    idx_path,
    manifest_path,
    publishing_path,
    token_dtype,
)
from salamandra_data.shards.manifest import (
    CHUNK_BYTES,
    ChunkChecksums,
    EncoderRecord,
    LabelCounts,
    ShardManifest,
    TokenizerIdentity,
)

_INDEX_BLOCK = 1 << 20
_MAX_DOCUMENT_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class EncodedDocuments:
    """Some documents of a shard, one after the other.

    Attributes:
        ids: [sum of lengths], any integer dtype; each document ends with the end-of-document id.
        lengths: [documents], tokens of each, int64.
        utf8_bytes: size of their texts together, without the end-of-document ids.
        sources: documents of each named source.
        licences: documents of each named licence.
    """

    ids: NDArray[Any]
    lengths: NDArray[np.int64]
    utf8_bytes: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)


class ShardWriter:
    """Collects documents of one language and publishes them as one shard.

    Use it as a context manager: leaving the block publishes ``.bin``, ``.idx`` and, last,
    ``.json``; an exception leaves nothing. Memory is 4 bytes per document, and the names of their sources.

    Args:
        prefix: path of the shard without file endings.
        language: language of every document.
        split: ``train`` or ``validation``.
        tokenizer: which tokenizer made the ids; its vocabulary decides the dtype on disk.
        shard: number of this shard among those made together, from 0, and
        shards: how many these are; None where that is not known.
        shuffle_seed: seed of the order of the documents, None if they are in their original order.
        preparation: identity of the run and of this shard's place in it, for the manifest.
        staging: directory for the unfinished files, on the same file system; default that of ``prefix``.
    """

    def __init__(
        self,
        prefix: Path,
        *,
        language: str,
        split: str,
        tokenizer: TokenizerIdentity,
        shard: int | None = None,
        shards: int | None = None,
        shuffle_seed: int | None = None,
        preparation: str | None = None,
        staging: Path | None = None,
    ) -> None:
        self.prefix = prefix
        self.tokens = 0
        self.documents = 0
        self.utf8_bytes = 0
        self.manifest: ShardManifest | None = None
        self._language, self._split, self._tokenizer = language, split, tokenizer
        self._shard, self._shards = shard, shards
        self._shuffle_seed, self._preparation = shuffle_seed, preparation
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._lengths = array("i")
        self._sources, self._licences = LabelCounts(), LabelCounts()
        directory = staging or prefix.parent
        self._staged = {
            final: directory / f".{final.name}.partial-{os.getpid()}"
            for final in (bin_path(prefix), idx_path(prefix), manifest_path(prefix))
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._stream = open(self._staged[bin_path(prefix)], "wb")  # noqa: SIM115 - closed by close() or abort()
        except OSError as error:
            raise write_error(bin_path(prefix), error) from error
        self._checksums = ChunkChecksums(CHUNK_BYTES)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def add_document(
        self,
        ids: NDArray[Any] | Sequence[int],
        *,
        utf8_bytes: int,
        source: str | None = None,
        licence: str | None = None,
    ) -> None:
        """Append one document, whose last id must be the end-of-document id.

        Args:
            ids: [tokens], any integer dtype, each in ``[0, vocab_size)``.
            utf8_bytes: size of its text, without the end-of-document id.
            source: where it comes from, if it says.
            licence: its licence, if it says.
        Raises:
            DataError: no ids, an id outside the vocabulary, or no end-of-document id.
            WriteError: a write failed.
        """
        row = ids if isinstance(ids, np.ndarray) else np.asarray(ids, dtype=np.int64)
        self.add_documents(
            EncodedDocuments(
                row,
                np.array([len(row)]),
                utf8_bytes,
                sources={} if source is None else {source: 1},
                licences={} if licence is None else {licence: 1},
            )
        )

    def add_documents(self, documents: EncodedDocuments) -> None:
        """Append several documents at once, under the conditions of :meth:`add_document`."""
        row, sizes = documents.ids, documents.lengths
        ends = np.cumsum(sizes)
        shortest, longest = int(sizes.min()), int(sizes.max())
        if shortest < 1 or longest > _MAX_DOCUMENT_TOKENS or row.shape != (int(ends[-1]),):
            raise DataError(
                f"{self.prefix}: a document must be a row of 1 to {_MAX_DOCUMENT_TOKENS:,} ids; "
                f"{row.size:,} ids came for lengths {shortest:,} to {longest:,}"
            )
        lowest, highest = int(row.min()), int(row.max())
        if lowest < 0 or highest >= self._tokenizer.vocab_size:
            bad = lowest if lowest < 0 else highest
            raise DataError(
                f"{self.prefix}: id {bad} is outside the vocabulary of {self._tokenizer.vocab_size:,}"
            )
        if (row[ends - 1] != self._tokenizer.eod_id).any():
            number = int((row[ends - 1] != self._tokenizer.eod_id).argmax())
            raise DataError(
                f"{self.prefix}: document {self.documents + number:,} ends with id {int(row[ends[number] - 1])}, "
                f"not with the end-of-document id {self._tokenizer.eod_id}"
            )
        raw = np.ascontiguousarray(row, dtype=self._dtype).data.cast("B")
        try:
            self._stream.write(raw)
        except OSError as error:
            self.abort()
            raise write_error(bin_path(self.prefix), error) from error
        self._checksums.update(raw)
        self._lengths.frombytes(sizes.astype(np.int32).tobytes())
        self.documents += sizes.size
        self.tokens += row.size
        self.utf8_bytes += documents.utf8_bytes
        self._sources.add(documents.sources)
        self._licences.add(documents.licences)

    def close(self, encoder: EncoderRecord | None = None) -> ShardManifest:
        """Finish and publish the three files, the manifest last.

        Args:
            encoder: what made the ids.

        Raises:
            WriteError: a write failed; nothing is left under the shard's names.
        """
        _, index, manifest_file = self._staged
        try:
            _sync_and_close(self._stream)
            sources, unlisted_sources = self._sources.listed()
            licences, unlisted_licences = self._licences.listed()
            index_sha256 = self._write_index(self._staged[index])
            self.manifest = ShardManifest(
                language=self._language,
                split=self._split,
                shard=self._shard,
                shards=self._shards,
                documents=self.documents,
                tokens=self.tokens,
                utf8_bytes=self.utf8_bytes,
                tokenizer=self._tokenizer,
                shuffle_seed=self._shuffle_seed,
                bin_bytes=self.tokens * self._dtype.itemsize,
                bin_sha256=self._checksums.digests(),
                idx_sha256=index_sha256,
                preparation=self._preparation,
                sources=sources,
                unlisted_sources=unlisted_sources,
                licences=licences,
                unlisted_licences=unlisted_licences,
                encoder=encoder,
            )
            with open(self._staged[manifest_file], "wb") as stream:
                stream.write(self.manifest.to_json())
                _sync_and_close(stream)
            self._publish()
        except OSError as error:
            self.abort()
            raise write_error(self.prefix, error) from error
        return self.manifest

    def abort(self) -> None:
        """Remove everything written so far."""
        with suppress(OSError):  # a full disk refuses the buffered rest, which is to be thrown away anyway
            self._stream.close()
        for staged in self._staged.values():
            staged.unlink(missing_ok=True)

    def _publish(self) -> None:
        """Give the three files their names, so that a manifest is there only with the other two whole.

        Their contents were synced before. The directory is synced once, before the manifest gets its name: then the
        names of ``.bin`` and ``.idx`` are durable when that one appears. Whether it is durable itself does not matter:
        a shard that lost it to a power failure counts as unfinished, and is made again. Until then the manifest is
        there under a hidden name, by which the next run knows the two as its own and not as those of another tool.
        """
        data, index, manifest = self._staged
        hidden = publishing_path(self.prefix)
        try:
            self.prefix.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._staged[manifest], hidden)
            os.replace(self._staged[data], data)
            os.replace(self._staged[index], index)
            sync_directory(self.prefix.parent)
            os.replace(hidden, manifest)
        except BaseException:
            for path in (data, index, manifest, hidden):  # a .bin without its .idx would look like data
                path.unlink(missing_ok=True)
            raise

    def _write_index(self, path: Path) -> str:
        lengths = np.frombuffer(self._lengths, dtype=np.int32) if self._lengths else np.empty(0, np.int32)
        header = IndexHeader(self._dtype, sequences=self.documents, documents=self.documents)
        digest = hashlib.sha256()
        with open(path, "wb") as stream:

            def put(raw: bytes) -> None:
                stream.write(raw)
                digest.update(raw)

            put(header.pack())
            put(lengths.astype("<i4").tobytes())
            start = 0
            for first in range(0, self.documents, _INDEX_BLOCK):
                ends = (
                    start
                    + np.cumsum(lengths[first : first + _INDEX_BLOCK], dtype=np.int64) * self._dtype.itemsize
                )
                put(np.concatenate(([start], ends[:-1])).astype("<i8").tobytes())
                start = int(ends[-1])
            for first in range(0, self.documents + 1, _INDEX_BLOCK):
                put(np.arange(first, min(first + _INDEX_BLOCK, self.documents + 1), dtype="<i8").tobytes())
            _sync_and_close(stream)
        return digest.hexdigest()


def _sync_and_close(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()
