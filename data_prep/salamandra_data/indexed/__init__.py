"""Indexed shards: ``PREFIX.bin`` and ``PREFIX.idx`` as Megatron writes them, ``PREFIX.json`` beside."""

from __future__ import annotations

from salamandra_data.indexed.chunk_checksums import CHUNK_BYTES, ChunkChecksums
from salamandra_data.indexed.label_counts import LabelCounts
from salamandra_data.indexed.layout import bin_path, idx_path, manifest_path, publishing_path, token_dtype
from salamandra_data.indexed.manifest import EncoderRecord, ShardManifest, TokenizerIdentity
from salamandra_data.indexed.shard import IndexedShard
from salamandra_data.indexed.shard_writer import ShardWriter

__all__ = [
    "CHUNK_BYTES",
    "ChunkChecksums",
    "EncoderRecord",
    "IndexedShard",
    "LabelCounts",
    "ShardManifest",
    "ShardWriter",
    "TokenizerIdentity",
    "bin_path",
    "idx_path",
    "manifest_path",
    "publishing_path",
    "token_dtype",
]
