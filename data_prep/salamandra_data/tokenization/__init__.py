"""Tokenization: documents in, globally shuffled indexed shards out.

Two passes, so that memory does not grow with the input. The first reads the input once and writes the
documents as *runs*: files of records sorted by language, split and shuffle key. The second divides the
range of keys of each language and split into shards; a worker gathers the documents of one shard, or of a
range of its keys, from all runs, encodes and writes them. Shuffle keys are hashes of seed, file and line, so the
shards are the same bytes whatever the number of workers. No token crosses a process.
"""

from __future__ import annotations

from salamandra_data.tokenization.backends import ENCODERS
from salamandra_data.tokenization.document_hash import is_validation
from salamandra_data.tokenization.driver import tokenize_documents, tokenize_with
from salamandra_data.tokenization.encoder import Encoder, cached_encoder
from salamandra_data.tokenization.job import DEFAULT_GUARD_SHARE, TokenizeJob, TokenizeOptions
from salamandra_data.tokenization.result import GroupResult, TokenizeResult

__all__ = [
    "DEFAULT_GUARD_SHARE",
    "ENCODERS",
    "Encoder",
    "GroupResult",
    "TokenizeJob",
    "TokenizeOptions",
    "TokenizeResult",
    "cached_encoder",
    "is_validation",
    "tokenize_documents",
    "tokenize_with",
]
