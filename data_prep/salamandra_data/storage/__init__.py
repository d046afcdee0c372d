"""Where shards are: local files, or objects behind an fsspec URL (``s3://``, ``gs://``, ``memory://`` ...)."""

from __future__ import annotations

from salamandra_data.storage.block_cache import BlockCache, CachedRemoteFile
from salamandra_data.storage.location import (
    Location,
    RemotePath,
    as_location,
    is_hidden_below,
    is_url,
    size_of,
)
from salamandra_data.storage.random_access import LocalFile, RandomAccess, RemoteFile, open_random_access

__all__ = [
    "BlockCache",
    "CachedRemoteFile",
    "LocalFile",
    "Location",
    "RandomAccess",
    "RemoteFile",
    "RemotePath",
    "as_location",
    "is_hidden_below",
    "is_url",
    "open_random_access",
    "size_of",
]
