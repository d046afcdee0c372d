"""The ``.json`` beside a shard: what is in it, by which tokenizer, and its checksums."""

from __future__ import annotations

import hashlib
import heapq
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.own_sums import drop_own_sum, is_digest, own_sum_holds, with_own_sum
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards.layout import manifest_path
from salamandra_data.storage import Location

FORMAT = "salamandra-shard-1"
CHUNK_BYTES = 64 << 20
MOST_LISTED = 1000
"""Names in one manifest: more of them, such as the pages of the web, nobody reads."""
_COUNTS = ("documents", "tokens", "utf8_bytes", "bin_bytes", "chunk_bytes")
_OPTIONAL_COUNTS = ("shard", "shards", "unlisted_sources", "unlisted_licences")
_OPTIONAL = {"encoder", *_OPTIONAL_COUNTS}  # shards that were made before these were recorded lack them


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


class LabelCounts:
    """Documents by name, of which the largest are listed."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unlisted = 0

    def add(self, counts: Mapping[str, int], unlisted: int = 0) -> None:
        """Count more documents, ``unlisted`` of them of names that are not known any more."""
        self._counts.update(counts)
        self._unlisted += unlisted

    def listed(self) -> tuple[dict[str, int], int]:
        """The :data:`MOST_LISTED` largest, in the order of their names, and the documents of all others."""
        largest = heapq.nsmallest(MOST_LISTED, self._counts.items(), key=lambda entry: (-entry[1], entry[0]))
        unlisted = self._counts.total() - sum(count for _, count in largest) + self._unlisted
        return dict(sorted(largest)), unlisted


@dataclass(frozen=True)
class TokenizerIdentity:
    """Which tokenizer the ids come from: SHA-256 of its model file, and its sizes."""

    sha256: str
    vocab_size: int
    eod_id: int


@dataclass(frozen=True)
class EncoderRecord:
    """What made the ids: the encoder, and how far it was compared with SentencePiece, the reference.

    Attributes:
        name: ``sentencepiece``, or a fast encoder of the same model.
        version: of its package.
        sentencepiece_version: of the reference.
        guard_share: of documents that were to be compared.
        documents_checked: that were, without a difference.
        documents_by_sentencepiece: that were not given to the fast encoder.
    """

    name: str
    version: str
    sentencepiece_version: str
    guard_share: float
    documents_checked: int
    documents_by_sentencepiece: int


@dataclass(frozen=True)
class ShardManifest:
    """Everything known about one shard that its ``.bin`` and ``.idx`` do not say.

    It is number ``shard``, from 0, of ``shards`` of its language and split that were made together; both are None
    where that is not known. ``bin_sha256`` holds one checksum per ``chunk_bytes`` of ``.bin``, so that a damaged part
    can be named and large files can be checked in parallel. ``sources`` and ``licences`` count documents, for documents
    that name them: the largest by name (:class:`LabelCounts`), and those of the others together as ``unlisted_sources``
    and ``unlisted_licences``. ``preparation`` identifies the run and the place in it that made the shard: the same
    value means the same ``.bin`` and ``.idx``. ``encoder`` is None for shards that were not made from text.
    """

    language: str
    split: str
    documents: int
    tokens: int
    utf8_bytes: int
    tokenizer: TokenizerIdentity
    shuffle_seed: int | None
    bin_bytes: int
    bin_sha256: tuple[str, ...]
    idx_sha256: str
    shard: int | None = None
    shards: int | None = None
    preparation: str | None = None
    sources: dict[str, int] = field(default_factory=dict)
    unlisted_sources: int = 0
    licences: dict[str, int] = field(default_factory=dict)
    unlisted_licences: int = 0
    encoder: EncoderRecord | None = None
    chunk_bytes: int = CHUNK_BYTES
    format: str = FORMAT

    @property
    def bin_digest(self) -> str:
        """One SHA-256 over the chunk checksums: equal if and only if the ``.bin`` files are."""
        return hashlib.sha256("".join(self.bin_sha256).encode()).hexdigest()

    def to_json(self) -> bytes:
        """The file's contents; keys in the order a person wants to read them."""
        values = asdict(self)
        first = (
            "format",
            "language",
            "split",
            "shard",
            "shards",
            "documents",
            "tokens",
            "utf8_bytes",
            "tokenizer",
        )
        ordered = {key: values.pop(key) for key in first} | values
        return with_own_sum((json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode())

    def save(self, prefix: Path) -> None:
        """Write ``PREFIX.json`` in one step."""
        atomic_write_bytes(manifest_path(prefix), self.to_json())

    @classmethod
    def load(cls, prefix: Location) -> ShardManifest:
        """Read ``PREFIX.json``.

        One that has no checksum of itself, as earlier ones, is read with a warning (:class:`DataWarning`).

        Raises:
            DataError: missing, not JSON, another format version, a key missing or of a wrong type, or not what was
                written.
        """
        path = manifest_path(prefix)
        try:
            raw = path.read_bytes()
            values = json.loads(raw)
            if isinstance(values, dict):
                drop_own_sum(values)
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: missing; the shard was not finished, or another tool made it\n"
                "  tokenize its text with `salamandra data tokenize` to have a manifest"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as a shard manifest: {error}") from error
        manifest = cls._from_values(path, values)
        match own_sum_holds(raw):
            case False:
                raise DataError(
                    f"{path}: does not have its own checksum: it was damaged, or changed by hand\n"
                    "  restore it from another copy of the shard, or prepare the shard again"
                )
            case None:
                warnings.warn(
                    f"{path.parent}: manifests of shards here have no checksum of themselves, as earlier ones; "
                    f"one that is damaged may pass\n  `salamandra data verify --renew {path.parent}` checks the shards "
                    "and adds it",
                    DataWarning,
                    stacklevel=2,
                )
        return manifest

    @classmethod
    def _from_values(cls, path: Location, values: Any) -> ShardManifest:
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise DataError(f"{path}: format is {found!r}, expected {FORMAT!r}")
        known = {entry.name for entry in fields(cls)}
        if missing := known - values.keys() - _OPTIONAL:
            raise DataError(f"{path}: key {min(missing)!r} is missing from the shard manifest")
        if unknown := values.keys() - known:
            raise DataError(f"{path}: unknown key {min(unknown)!r} in the shard manifest")
        for key in (*_COUNTS, *(key for key in _OPTIONAL_COUNTS if values.get(key) is not None)):
            value = values[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise DataError(f"{path}: {key} = {value!r} is not a count")
        for key in ("language", "split"):
            if not isinstance(values[key], str):
                raise DataError(f"{path}: {key} = {values[key]!r} is not text")
        if not is_digest(values["idx_sha256"]):
            raise DataError(f"{path}: idx_sha256 = {values['idx_sha256']!r} is not a SHA-256")
        for key in ("sources", "licences"):
            labels = values.get(key, {})
            if not isinstance(labels, dict) or not all(type(count) is int for count in labels.values()):
                raise DataError(f"{path}: {key} is not a list of names with their counts")
        sums = values["bin_sha256"]
        if not isinstance(sums, list) or not all(map(is_digest, sums)):
            raise DataError(f"{path}: bin_sha256 is not a list of checksums")
        if not values["chunk_bytes"] or len(sums) < -(-values["bin_bytes"] // values["chunk_bytes"]):
            raise DataError(f"{path}: has checksums for the first part of its .bin only")
        try:
            tokenizer = TokenizerIdentity(**values["tokenizer"])
            encoder = values.get("encoder") and EncoderRecord(**values["encoder"])
            checksums = tuple(values["bin_sha256"])
            if not is_digest(tokenizer.sha256):
                raise DataError(f"{path}: tokenizer.sha256 = {tokenizer.sha256!r} is not a SHA-256")
            return cls(**{**values, "tokenizer": tokenizer, "bin_sha256": checksums, "encoder": encoder})
        except TypeError as error:
            raise DataError(f"{path}: not a shard manifest: {error}") from error
