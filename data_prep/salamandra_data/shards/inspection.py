"""Looking at shards: what they hold, documents as text, and documents that hold a text."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards.indexed_shard import IndexedShard
from salamandra_data.shards.layout import manifest_path, token_dtype
from salamandra_data.shards.manifest import ShardManifest
from salamandra_data.shards.shard_files import find_shards, same_tokens, shards_tokenizer
from salamandra_data.shards.token_text import TokenText, cached_token_text
from salamandra_data.storage import Location, is_file
from salamandra_data.text_table import harmless, text_table

_HEADING = (
    "shard",
    "language",
    "split",
    "documents",
    "tokens",
    "dtype",
    "bytes/token",
    "tokenizer",
    "licences",
)
_EXCERPT_CHARACTERS = 60


def shard_table(path: Location) -> str:
    """One line per shard of a directory or prefix; what only a manifest knows is ``-`` without one."""
    rows: list[tuple[str, ...]] = []
    manifests: list[tuple[Location, ShardManifest]] = []
    documents = tokens = 0
    for prefix in find_shards([path]):
        shard = IndexedShard.open(prefix)
        documents, tokens = documents + shard.documents, tokens + shard.tokens
        if is_file(manifest_path(prefix)):
            manifests.append((prefix, ShardManifest.load(prefix)))
            rows.append(_manifest_row(*manifests[-1]))
        else:
            counts = (f"{shard.documents:,}", f"{shard.tokens:,}", shard.dtype.name)
            rows.append((prefix.name, "-", "-", *counts, "-", "-", "-"))
    for one, other in same_tokens(manifests):
        warnings.warn(f"{one}: holds the same tokens as {other}", DataWarning, stacklevel=2)
    return text_table(_HEADING, rows, _total(documents, tokens))


def manifest_table(shards: Sequence[tuple[Location, ShardManifest]]) -> str:
    """The table of shards whose manifests are at hand."""
    rows = [_manifest_row(prefix, manifest) for prefix, manifest in shards]
    documents = sum(manifest.documents for _, manifest in shards)
    return text_table(_HEADING, rows, _total(documents, sum(manifest.tokens for _, manifest in shards)))


def _manifest_row(prefix: Location, manifest: ShardManifest) -> tuple[str, ...]:
    return (
        prefix.name,
        manifest.language,
        manifest.split,
        f"{manifest.documents:,}",
        f"{manifest.tokens:,}",
        token_dtype(manifest.tokenizer.vocab_size).name,
        f"{manifest.utf8_bytes / max(manifest.tokens, 1):.3f}",
        manifest.tokenizer.sha256[:12],
        _licences(manifest),
    )


def _licences(manifest: ShardManifest) -> str:
    entries = [f"{name} {count:,}" for name, count in manifest.licences.items()]
    if manifest.unlisted_licences:
        entries.append(f"{'others' if entries else 'unlisted'} {manifest.unlisted_licences:,}")
    return ", ".join(entries) or "-"


def _total(documents: int, tokens: int) -> tuple[str, ...]:
    return ("all", "", "", f"{documents:,}", f"{tokens:,}", "", "", "", "")


def document_text(path: Location, number: int, tokenizer: Path | None = None) -> str:
    """Document ``number``, counted from 0 over the shards of ``path`` in their order, as text for a terminal.

    Control characters are shown as escapes (:func:`harmless`).

    Raises:
        DataError: no such document, or no tokenizer that made the shard.
    """
    if number < 0:
        raise DataError(f"{path}: document {number} asked for; documents are counted from 0")
    remaining = number
    for prefix in find_shards([path]):
        shard = IndexedShard.open(prefix)
        if remaining < shard.documents:
            return harmless(_token_text_of(shard, tokenizer).decode(shard.document(remaining)))
        remaining -= shard.documents
    raise DataError(f"{path}: document {number:,} asked for; there are {number - remaining:,}")


@dataclass(frozen=True)
class FoundDocument:
    """A document that holds the text looked for.

    ``number`` counts over all shards of the place searched, as :func:`document_text` does; ``shard_document`` within
    ``prefix``. ``excerpt`` is the first place where the text stands, on one line.
    """

    number: int
    prefix: Location
    shard_document: int
    tokens: int
    excerpt: str

    def line(self) -> str:
        """For people."""
        return (
            f"{self.number}  {self.prefix.name}:{self.shard_document}  {self.tokens:,} tokens  {self.excerpt}"
        )


def search_documents(path: Location, text: str, tokenizer: Path | None = None) -> Iterator[FoundDocument]:
    """Documents whose text contains ``text`` (case counts), in the order of the shards; reads until stopped.

    ``text`` is compared as NFC, which is what the tokenizer made of the documents.

    Raises:
        DataError: ``text`` is empty, or no tokenizer that made the shards.
    """
    # Python keeps what the locale's encoding lacks as surrogates; the bytes are those of the terminal.
    typed = text.encode(errors="surrogateescape").decode(errors="replace")
    wanted = unicodedata.normalize("NFC", typed)
    if not wanted:
        raise DataError("--search: the text to look for is empty")
    before = 0
    for prefix in find_shards([path]):
        shard = IndexedShard.open(prefix)
        token_text = _token_text_of(shard, tokenizer)
        for number in range(shard.documents):
            found = token_text.decode(shard.document(number))
            place = found.find(wanted)
            if place >= 0:
                tokens = len(shard.document(number))
                yield FoundDocument(
                    before + number, prefix, number, tokens, _excerpt(found, place, len(wanted))
                )
        before += shard.documents


def _excerpt(text: str, place: int, length: int) -> str:
    first, last = max(0, place - _EXCERPT_CHARACTERS), place + length + _EXCERPT_CHARACTERS
    inside = harmless(" ".join(text[first:last].split()))
    return f"{'…' if first else ''}{inside}{'…' if last < len(text) else ''}"


def _token_text_of(shard: IndexedShard, tokenizer: Path | None) -> TokenText:
    """How to read a shard whose documents are to be shown; its index is checked."""
    prefix, expected = shard.prefix, None
    if is_file(manifest_path(prefix)):
        manifest = ShardManifest.load(prefix)
        shard.check_index(manifest.idx_sha256)
        expected = manifest.tokenizer
    return cached_token_text(shards_tokenizer(prefix, expected, tokenizer))
