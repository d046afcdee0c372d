"""Tokenization: documents in, globally shuffled indexed shards out.

Two passes, so that memory does not grow with the input. The first reads the input once and writes the
documents as *runs*: files of records sorted by language, split and shuffle key. The second divides the
range of keys of each language and split into shards; a worker gathers the documents of one shard from
all runs, encodes and writes it. Shuffle keys are hashes of seed, file and line, so the shards are the
same bytes whatever the number of workers. No token crosses a process.
"""

from __future__ import annotations

from salamandra_data.tokenization.backends import ENCODERS
from salamandra_data.tokenization.job import DEFAULT_GUARD_SHARE, TokenizeJob
from salamandra_data.tokenization.result import GroupResult, TokenizeResult
from salamandra_data.tokenization.stages import tokenize_in_stages
from salamandra_data.tokenization.tokenize import tokenize

__all__ = [
    "DEFAULT_GUARD_SHARE",
    "ENCODERS",
    "GroupResult",
    "TokenizeJob",
    "TokenizeResult",
    "tokenize",
    "tokenize_in_stages",
]
