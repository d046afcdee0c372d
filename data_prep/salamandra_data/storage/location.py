"""Paths that may be URLs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from megatron_salamandra.foundation.credentials import without_credentials
from salamandra_data.errors import DataError
from salamandra_data.storage.retries import with_retries

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, order=True)
class RemotePath:
    """An fsspec URL, with what of ``pathlib.Path`` reading shards needs.

    As text it is without credentials: whatever shows or keeps it shows and keeps none.

    Attributes:
        url: such as ``s3://bucket/shards/ca-train-00000``, without a slash at the end.
    """

    url: str

    def __str__(self) -> str:
        return without_credentials(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """What is behind the last slash, and before what opens a web server's object (``?signature=...``)."""
        return self.key.rsplit("/", 1)[1]

    @property
    def key(self) -> str:
        """The URL; of a web server's without what follows a ``?``."""
        return self.url.split("?", 1)[0] if self.url.startswith(("http://", "https://")) else self.url

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
        return bool(with_retries(str(self), lambda: self.filesystem().exists(self.url)))

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(with_retries(str(self), lambda: self.filesystem().isfile(self.url)))

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return bool(with_retries(str(self), lambda: self.filesystem().isdir(self.url)))

    def size(self) -> int:
        """Bytes of the object.

        Raises:
            FileNotFoundError: there is none.
            ServerLimit: the server does not tell.
        """
        size = with_retries(str(self), lambda: self.filesystem().size(self.url))
        if size is None:
            raise ServerLimit(self, "does not tell its size")
        return int(size)

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        return cast(bytes, with_retries(str(self), lambda: self.filesystem().cat_file(self.url)))

    def open(self, mode: str = "rb") -> BinaryIO:
        """A stream over the object, for reading it from its start to its end.

        Raises:
            FileNotFoundError: there is none.
        """
        if mode != "rb":
            raise ValueError(f"{self}: can be opened for reading bytes only, not with {mode!r}")
        return io.BufferedReader(RemoteStream(self), _BUFFER_BYTES)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """All objects below; ``pattern`` must be ``*``.

        Raises:
            DataError: something below may not be listed.
        """
        if pattern != "*":
            raise ValueError(f"{self}: only all objects can be listed, not {pattern!r}")
        system, root = _filesystem(self.url)
        for path in _objects_below(system, root):
            yield RemotePath(self.url + path[len(root) :])  # in our spelling, so that equal places are equal

    def filesystem(self) -> Any:
        """The fsspec file system of the URL; fsspec keeps one per protocol and process.

        Raises:
            DataError: the package for this protocol is not installed, or there is no such protocol.
        """
        return _filesystem(self.url)[0]


class RemoteStream(io.RawIOBase):
    """Raw, readable stream over an object, from its start to its end; the network may fail in between.

    A web server that gives whole objects only is read in one go.
    """

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._position = 0
        self._in_parts = True
        self._stream: BinaryIO | None = self._opened()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from the front; 0 at the end.

        Raises:
            DataError: the network failed again and again.
        """
        content = with_retries(str(self._path), lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        """Close the connection too."""
        if not self.closed and self._stream is not None:
            self._stream.close()
        super().close()

    def _read(self, count: int) -> bytes:
        if self._stream is None:
            self._stream = self._opened()
            self._skip(self._stream)
        try:
            return self._stream.read(count)
        except ValueError:  # what fsspec says when a server answers a request for a part with the whole
            if not self._in_parts or not self._path.url.startswith(("http://", "https://")):
                raise
            self._in_parts = False
            self._let_go()
            return self._read(count)
        except Exception:
            # Without a size, fsspec reads in one go: the next attempt starts again and passes over what was read.
            if not self._in_parts or getattr(self._stream, "size", None) is None:
                self._let_go()
            raise

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _skip(self, stream: BinaryIO) -> None:
        left = self._position
        while left:
            passed = len(stream.read(min(left, _BUFFER_BYTES)))
            if not passed:
                raise DataError(f"{self._path}: is shorter than when it was opened\n  run the command again")
            left -= passed

    def _opened(self) -> BinaryIO:
        url, options = self._path.url, {} if self._in_parts else {"block_size": 0}
        return cast(
            BinaryIO,
            with_retries(str(self._path), lambda: self._path.filesystem().open(url, "rb", **options)),
        )


class ServerLimit(DataError):
    """A server that does not tell sizes or gives whole objects only, where parts must be read.

    Args:
        path: of the object.
        lacks: what the server does not do.
    """

    def __init__(self, path: RemotePath, lacks: str) -> None:
        super().__init__(
            f"{path}: the server {lacks}, which reading shards and tables needs\n"
            "  copy them to a disk first, or offer them on a server that tells sizes and answers range requests; "
            "JSON lines and text can be read from any"
        )


def _walks(system: Any) -> bool:
    """Whether a file system lists a tree directory by directory, by the code it inherits."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    if isinstance(system, AsyncFileSystem):
        return type(system)._find is AsyncFileSystem._find
    return type(system).find is AbstractFileSystem.find


def _objects_below(system: Any, directory: str) -> Iterator[str]:
    """As ``system.find``, whose inherited walk passes over directories that it may not list."""
    listed = (
        (lambda: system.ls(directory, detail=True)) if _walks(system) else (lambda: system.find(directory))
    )
    try:
        entries = with_retries(directory, listed)
    except PermissionError as error:
        raise DataError(
            f"{directory}: may not be listed by this user: {error}\n  give credentials for it, or leave it out"
        ) from error
    if not _walks(system):
        yield from entries
        return
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        name = str(entry["name"]).rstrip("/")
        if name == directory.rstrip("/"):
            continue
        if entry["type"] == "directory":
            yield from _objects_below(system, name)
        else:
            yield name


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
        ServerLimit: a server does not tell.
    """
    return location.size() if isinstance(location, RemotePath) else location.stat().st_size


def is_hidden_below(path: Location, directory: Location) -> bool:
    """Whether a part of ``path`` below ``directory`` starts with a dot."""
    below = str(path)[len(str(directory)) :]
    return any(part.startswith(".") for part in below.split("/"))
