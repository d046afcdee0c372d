"""Paths that may be URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from salamandra_data.errors import DataError
from salamandra_data.storage.retries import with_retries

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True, order=True)
class RemotePath:
    """An fsspec URL, with what of ``pathlib.Path`` reading shards needs.

    Attributes:
        url: such as ``s3://bucket/shards/ca-train-00000``, without a slash at the end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What is behind the last slash."""
        return self.url.rsplit("/", 1)[1]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot; empty if there is none."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The URL without its last part."""
        return RemotePath(self.url.rsplit("/", 1)[0])

    def with_name(self, name: str) -> RemotePath:
        """The same place with another last part."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """The same place with another ending of its name."""
        return self.with_name(self.name.removesuffix(self.suffix) + suffix)

    def absolute(self) -> RemotePath:
        """Itself: a URL is absolute."""
        return self

    def resolve(self) -> RemotePath:
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether there is an object, or one below."""
        return bool(with_retries(self.url, lambda: self.filesystem().exists(self.url)))

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(with_retries(self.url, lambda: self.filesystem().isfile(self.url)))

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return bool(with_retries(self.url, lambda: self.filesystem().isdir(self.url)))

    def size(self) -> int:
        """Bytes of the object.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(with_retries(self.url, lambda: self.filesystem().size(self.url)))

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        return cast(bytes, with_retries(self.url, lambda: self.filesystem().cat_file(self.url)))

    def open(self, mode: str = "rb") -> BinaryIO:
        """A stream over the object, for reading."""
        return cast(BinaryIO, with_retries(self.url, lambda: self.filesystem().open(self.url, mode)))

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """All objects below; ``pattern`` must be ``*``."""
        if pattern != "*":
            raise ValueError(f"{self.url}: only all objects can be listed, not {pattern!r}")
        system, root = _filesystem(self.url)
        for path in with_retries(self.url, lambda: system.find(root)):
            yield RemotePath(self.url + path[len(root) :])  # in our spelling, so that equal places are equal

    def filesystem(self) -> Any:
        """The fsspec file system of the URL; fsspec keeps one per protocol and process.

        Raises:
            DataError: the package for this protocol is not installed, or there is no such protocol.
        """
        return _filesystem(self.url)[0]


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system, and the URL as it spells it."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: cannot be reached: {error}") from error
    return system, path


Location: TypeAlias = Path | RemotePath


def is_url(text: str) -> bool:
    """Whether ``text`` starts with ``protocol://``."""
    return _SCHEME.match(text) is not None


def as_location(text: Location | str) -> Location:
    """The path or URL that ``text`` means; ``file://`` is a path."""
    if not isinstance(text, str):
        return text
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return RemotePath(text.rstrip("/")) if is_url(text) else Path(text)


def size_of(location: Location) -> int:
    """Bytes of a file or object.

    Raises:
        OSError: as the system says; FileNotFoundError if there is none.
    """
    return location.size() if isinstance(location, RemotePath) else location.stat().st_size


def is_hidden_below(path: Location, directory: Location) -> bool:
    """Whether a part of ``path`` below ``directory`` starts with a dot."""
    below = str(path)[len(str(directory)) :]
    return any(part.startswith(".") for part in below.split("/"))
