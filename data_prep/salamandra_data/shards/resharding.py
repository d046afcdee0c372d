"""Copying documents from shards to shards, checked on the way and published all together."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from megatron_salamandra.foundation.atomic_files import publish, write_error
from megatron_salamandra.foundation.progress import ProgressLine
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards.document_row import Cut, DocumentRow, Piece
from salamandra_data.shards.layout import bin_path, idx_path, manifest_path
from salamandra_data.shards.manifest import ChunkChecksums, LabelCounts, ShardManifest
from salamandra_data.shards.shard_files import keep_tokenizer, same_tokens, shards_tokenizer
from salamandra_data.shards.shard_writer import EncodedDocuments, ShardWriter
from salamandra_data.shards.token_text import TokenText
from salamandra_data.storage import Location
from salamandra_data.working_directory import working_directory

_BLOCK_TOKENS = 1 << 20
_PREPARATION = "salamandra-reshard-1"


def reshard(
    prefixes: Sequence[Location], out: Path, cut: Cut, *, tokenizer: Path | None = None
) -> list[tuple[Path, ShardManifest]]:
    """Write the documents of ``prefixes``, in that order, as shards ``LANGUAGE-SPLIT-NNNNN`` in ``out``.

    Checksums of what is read are compared with the manifests, so that damage is not sealed under new ones. Nothing
    appears in ``out`` before everything is written. Memory is 4 bytes per document of one new shard.

    Args:
        prefixes: shards of one language, split and tokenizer, with manifests.
        out: directory for the new shards and a copy of their tokenizer.
        cut: where shards end.
        tokenizer: the shards' model, if it is not beside the first of them.
    Returns:
        Prefix and manifest of each new shard.
    Raises:
        DataError: the shards do not belong together or are damaged, ``out`` holds such shards already or lies among
            those that are read, or the tokenizer is missing.
        WriteError: a write failed. Nothing new is left then.
    """
    row = DocumentRow(prefixes)
    for one, other in same_tokens(zip(prefixes, row.manifests, strict=True)):
        raise DataError(
            f"{one}: holds the same tokens as {other}; its documents would be doubled\n  name one of them only"
        )
    language, split = row.manifests[0].language, row.manifests[0].split
    taken = sorted(out.glob(f"{language}-{split}-[0-9]*.*")) if out.is_dir() else []
    if taken:
        raise DataError(
            f"{taken[0]}: there are shards of {language!r}, {split}, in this directory already\n"
            "  choose another --out"
        )
    _check_apart(prefixes, out)
    model = shards_tokenizer(prefixes[0], row.tokenizer, tokenizer)
    token_text = TokenText(model)
    bounds = cut.bounds(row)
    identity = _identity(row, bounds)
    with (
        working_directory(out, "reshard") as staging,
        closing(_Copy(row, token_text)) as copy,
    ):
        names = [f"{language}-{split}-{number:05d}" for number in range(len(bounds) - 1)]
        manifests: list[ShardManifest] = []
        with ProgressLine("copying   ", lambda: copy.tokens, row.tokens, copy.rates):
            for number, name in enumerate(names):
                writer = ShardWriter(
                    staging / name,
                    language=language,
                    split=split,
                    tokenizer=row.tokenizer,
                    shard=number,
                    shards=len(names),
                    shuffle_seed=_common_seed(row),
                    preparation=f"{identity}-{number}",
                )
                with writer:
                    for piece in row.pieces(bounds[number], bounds[number + 1]):
                        copy.piece(writer, piece)
                assert writer.manifest is not None
                manifests.append(writer.manifest)
        manifests = _completed(row, bounds, manifests, copy.text_bytes_of)
        for name, manifest in zip(names, manifests, strict=True):
            manifest.save(staging / name)
        keep_tokenizer(out, model, row.tokenizer.sha256)
        _publish(staging, out, names)
    return [(out / name, manifest) for name, manifest in zip(names, manifests, strict=True)]


class _Copy:
    """Reads the row from front to back, once, and checks each shard's checksums as it goes."""

    def __init__(self, row: DocumentRow, token_text: TokenText) -> None:
        self.documents = self.bytes = self.tokens = 0  # copied so far
        self.text_bytes_of: list[list[int]] = [[] for _ in row.shards]  # of each piece, by shard
        self._row, self._token_text = row, token_text
        self._checksums = [ChunkChecksums(manifest.chunk_bytes) for manifest in row.manifests]
        self._stream: BinaryIO | None = None  # over the .bin that is being read

    def piece(self, writer: ShardWriter, piece: Piece) -> None:
        """Append the documents of ``piece``, which follows the last one."""
        shard = self._row.shards[piece.shard]
        path, lengths = bin_path(shard.prefix), shard.lengths
        counted, first = 0, piece.first_document
        try:
            if first == 0 or self._stream is None:
                self._stream = path.open("rb")
            while first < piece.last_document:
                last = _block_end(lengths[first : piece.last_document]) + first
                block = lengths[first:last]
                raw = self._stream.read(int(block.sum(dtype=np.int64)) * shard.dtype.itemsize)
                self._checksums[piece.shard].update(raw)
                ids = np.frombuffer(raw, dtype=shard.dtype)
                writer.add_documents(EncodedDocuments(ids, block.astype(np.int64)))
                counted += self._token_text.count_bytes(ids, block)
                self.documents, self.bytes = self.documents + len(block), self.bytes + ids.nbytes
                self.tokens += ids.size
                first = last
            if piece.last_document == shard.documents:
                self.close()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        self.text_bytes_of[piece.shard].append(counted)
        if piece.last_document == shard.documents:
            self._check(piece.shard)

    def rates(self, seconds: float) -> list[str]:
        """What was copied, and how fast, for the progress line."""
        return [
            f"{self.documents:,} documents",
            f"{self.bytes / 1e6 / seconds:,.1f} MB/s",
            f"{self.documents / seconds:,.0f} documents/s",
        ]

    def close(self) -> None:
        """Let go of the file that is being read."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _check(self, shard: int) -> None:
        found, expected = self._checksums[shard].digests(), self._row.manifests[shard].bin_sha256
        if found != expected:
            raise DataError(
                f"{bin_path(self._row.shards[shard].prefix)}: does not have the checksums of its manifest: damaged\n"
                "  `salamandra data verify` tells where; restore the shard or prepare it again"
            )


def _block_end(lengths: np.ndarray[tuple[int], np.dtype[np.int32]]) -> int:
    """How many of the documents make a block of about ``_BLOCK_TOKENS``, at least one."""
    window = lengths[:_BLOCK_TOKENS]
    return max(1, int(np.searchsorted(np.cumsum(window, dtype=np.int64), _BLOCK_TOKENS, side="right")))


def _completed(
    row: DocumentRow, bounds: list[int], manifests: list[ShardManifest], counted: list[list[int]]
) -> list[ShardManifest]:
    """The manifests with the bytes, sources and licences that their parts of the old shards stand for.

    The bytes of an old shard are shared out by the bytes its pieces were counted to have, so their sum stays. Which
    document is of which source is not known any more: names are handed on for whole shards, and where all documents
    of a shard are of one source. Else the documents that have one are counted as unlisted, shared out by the number of
    documents, so that their sum stays too.
    """
    bytes_of, labels_of = [0] * len(manifests), [(LabelCounts(), LabelCounts()) for _ in manifests]
    pieces_seen = [0] * len(row.shards)
    nameless = 0
    for number in range(len(manifests)):
        for piece in row.pieces(bounds[number], bounds[number + 1]):
            old, shares = row.manifests[piece.shard], counted[piece.shard]
            place = pieces_seen[piece.shard]
            pieces_seen[piece.shard] += 1
            whole = max(sum(shares), 1)
            before, after = sum(shares[:place]), sum(shares[: place + 1])
            last = place == len(shares) - 1
            bytes_of[number] += (old.utf8_bytes if last else old.utf8_bytes * after // whole) - (
                old.utf8_bytes * before // whole
            )
            documents = piece.last_document - piece.first_document
            for labels, counts, unlisted in zip(
                labels_of[number],
                (old.sources, old.licences),
                (old.unlisted_sources, old.unlisted_licences),
                strict=True,
            ):
                if documents == old.documents:
                    labels.add(counts, unlisted)
                elif len(counts) == 1 and sum(counts.values()) == old.documents:
                    labels.add(dict.fromkeys(counts, documents))
                else:
                    named = sum(counts.values()) + unlisted
                    share = [
                        named * document // old.documents
                        for document in (piece.first_document, piece.last_document)
                    ]
                    labels.add({}, share[1] - share[0])
                    nameless += bool(counts)
    if nameless:
        warnings.warn(
            f"{row.shards[0].prefix}: where a shard of several sources or licences is cut, it is not known which "
            "document is of which: the new shards count them as unlisted, without names",
            DataWarning,
            stacklevel=3,
        )
    completed = []
    for manifest, size, labels_pair in zip(manifests, bytes_of, labels_of, strict=True):
        (sources, unlisted_sources), (licences, unlisted_licences) = (one.listed() for one in labels_pair)
        completed.append(
            replace(
                manifest,
                utf8_bytes=size,
                sources=sources,
                unlisted_sources=unlisted_sources,
                licences=licences,
                unlisted_licences=unlisted_licences,
            )
        )
    return completed


def _check_apart(prefixes: Sequence[Location], out: Path) -> None:
    """Refuse to write among the shards that are read: who takes that directory would take their documents twice."""
    place = out.resolve()
    for prefix in prefixes:
        if isinstance(prefix, Path):
            source = prefix.resolve().parent
            if place in (source, *source.parents) or source in place.parents:
                raise DataError(
                    f"{out}: holds {prefix}, or lies in its directory; whoever takes that directory as a whole would "
                    "take its documents twice\n  choose an --out beside it"
                )


def _common_seed(row: DocumentRow) -> int | None:
    seeds = {manifest.shuffle_seed for manifest in row.manifests}
    return seeds.pop() if len(seeds) == 1 else None


def _identity(row: DocumentRow, bounds: list[int]) -> str:
    contents = [(manifest.bin_digest, manifest.idx_sha256) for manifest in row.manifests]
    return hashlib.sha256(f"{_PREPARATION} {contents} {bounds}".encode()).hexdigest()


def _publish(staging: Path, out: Path, names: list[str]) -> None:
    published: list[Path] = []
    try:
        for name in names:
            for place in (bin_path, idx_path, manifest_path):
                publish(place(staging / name), place(out / name))
                published.append(place(out / name))
    except OSError as error:
        for path in published:
            path.unlink(missing_ok=True)
        raise write_error(out, error) from error
