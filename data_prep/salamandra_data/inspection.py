"""Looking at shards: what they hold, and a document as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.indexed import IndexedShard, ShardManifest, manifest_path
from salamandra_data.shard_files import TOKENIZER_FILE_NAME, find_shards
from salamandra_data.text_table import text_table
from salamandra_data.tokenization.encoder import Encoder


def shard_table(path: Path) -> str:
    """One line per shard of a directory or prefix; what only a manifest knows is ``-`` without one."""
    rows: list[tuple[str, ...]] = []
    documents = tokens = 0
    for prefix in find_shards([path]):
        shard = IndexedShard.open(prefix)
        documents, tokens = documents + shard.documents, tokens + shard.tokens
        counts = (f"{shard.documents:,}", f"{shard.tokens:,}", shard.dtype.name)
        if manifest_path(prefix).exists():
            manifest = ShardManifest.load(prefix)
            labels = ", ".join(f"{name} {count:,}" for name, count in manifest.licences.items()) or "-"
            bytes_per_token = f"{manifest.utf8_bytes / max(manifest.tokens, 1):.3f}"
            tokenizer = manifest.tokenizer.sha256[:12]
            rows.append(
                (prefix.name, manifest.language, manifest.split, *counts, bytes_per_token, tokenizer, labels)
            )
        else:
            rows.append((prefix.name, "-", "-", *counts, "-", "-", "-"))
    heading = (
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
    total = ("all", "", "", f"{documents:,}", f"{tokens:,}", "", "", "", "")
    return text_table(heading, rows, total)


def document_text(path: Path, number: int, tokenizer: Path | None = None) -> str:
    """Document ``number``, counted from 0 over the shards of ``path`` in their order, as text.

    Raises:
        DataError: no such document, or no tokenizer that made the shard.
    """
    if number < 0:
        raise DataError(f"{path}: document {number} asked for; documents are counted from 0")
    remaining = number
    for prefix in find_shards([path]):
        shard = IndexedShard.open(prefix)
        if remaining < shard.documents:
            ids = shard.document(remaining).astype(np.int32)
            encoder = _encoder_of(prefix, tokenizer)
            return encoder.decode(ids[:-1] if len(ids) and ids[-1] == encoder.identity.eod_id else ids)
        remaining -= shard.documents
    raise DataError(f"{path}: document {number:,} asked for; there are {number - remaining:,}")


def _encoder_of(prefix: Path, tokenizer: Path | None) -> Encoder:
    model = tokenizer or prefix.with_name(TOKENIZER_FILE_NAME)
    if not model.is_file():
        raise DataError(
            f"{model}: no tokenizer here to turn ids into text\n  name the model file with --tokenizer"
        )
    encoder = Encoder(model)
    if manifest_path(prefix).exists():
        expected = ShardManifest.load(prefix).tokenizer
        if encoder.identity != expected:
            raise DataError(
                f"{model}: is not the tokenizer of {prefix} (SHA-256 {encoder.identity.sha256}, "
                f"expected {expected.sha256})\n  name the right model file with --tokenizer"
            )
    return encoder
