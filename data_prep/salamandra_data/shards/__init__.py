"""Shards: ``PREFIX.bin`` and ``PREFIX.idx`` as Megatron writes them, ``PREFIX.json`` beside.

Reading and writing them, finding them, looking into them, checking them, and cutting and joining them.
"""

from __future__ import annotations

from salamandra_data.shards.document_row import Cut, IntoParts, IntoTokens, Whole
from salamandra_data.shards.indexed_shard import IndexedShard
from salamandra_data.shards.inspection import (
    FoundDocument,
    document_text,
    manifest_table,
    search_documents,
    shard_table,
)
from salamandra_data.shards.layout import bin_path, idx_path, manifest_path, publishing_path, token_dtype
from salamandra_data.shards.manifest import (
    CHUNK_BYTES,
    ChunkChecksums,
    EncoderRecord,
    LabelCounts,
    ShardManifest,
    TokenizerIdentity,
)
from salamandra_data.shards.resharding import reshard
from salamandra_data.shards.shard_files import (
    TOKENIZER_FILE_NAME,
    check_complete,
    find_shards,
    is_whole,
    keep_tokenizer,
    missing_files,
    one_shard,
    same_tokens,
    shards_tokenizer,
    tokenizer_file,
)
from salamandra_data.shards.shard_writer import EncodedDocuments, ShardWriter
from salamandra_data.shards.verification import VerificationReport, lost_shards, verify_shards

__all__ = [
    "CHUNK_BYTES",
    "TOKENIZER_FILE_NAME",
    "ChunkChecksums",
    "Cut",
    "EncodedDocuments",
    "EncoderRecord",
    "FoundDocument",
    "IndexedShard",
    "IntoParts",
    "IntoTokens",
    "LabelCounts",
    "ShardManifest",
    "ShardWriter",
    "TokenizerIdentity",
    "VerificationReport",
    "Whole",
    "bin_path",
    "check_complete",
    "document_text",
    "find_shards",
    "idx_path",
    "is_whole",
    "keep_tokenizer",
    "lost_shards",
    "manifest_path",
    "manifest_table",
    "missing_files",
    "one_shard",
    "publishing_path",
    "reshard",
    "same_tokens",
    "search_documents",
    "shard_table",
    "shards_tokenizer",
    "token_dtype",
    "tokenizer_file",
    "verify_shards",
]
