"""Where text and shards are: local files, or objects behind an fsspec URL (``s3://``, ``gs://``, ``memory://`` ...)."""

from __future__ import annotations

from salamandra_data.storage.directory_tree import check_searchable, files_below, is_directory, is_file
from salamandra_data.storage.location import (
    Location,
    RemotePath,
    RemoteStream,
    ServerLimit,
    as_location,
    is_hidden_below,
    is_url,
    size_of,
)
from salamandra_data.storage.random_access import (
    BlockCache,
    CachedRemoteFile,
    LocalFile,
    RandomAccess,
    RemoteFile,
    open_random_access,
)
from salamandra_data.storage.retries import with_retries

__all__ = [
    "BlockCache",
    "CachedRemoteFile",
    "LocalFile",
    "Location",
    "RandomAccess",
    "RemoteFile",
    "RemotePath",
    "RemoteStream",
    "ServerLimit",
    "as_location",
    "check_searchable",
    "files_below",
    "is_directory",
    "is_file",
    "is_hidden_below",
    "is_url",
    "open_random_access",
    "size_of",
    "with_retries",
]
