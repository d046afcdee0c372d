"""Reads of local files are tried again where a shared file system fails for a while, and only there."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salamandra_data.errors import DataError
from salamandra_data.storage import open_random_access, retries

CONTENTS = bytes(range(200))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.001)
    path = tmp_path / "shard.bin"
    path.write_bytes(CONTENTS)
    return path


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """Makes the next reads fail with an error number; the list grows with every attempt."""

    def begin(number: int, times: int) -> list[int]:
        attempts: list[int] = []
        real = os.preadv

        def preadv(*arguments: Any) -> int:
            attempts.append(arguments[2])
            if len(attempts) <= times:
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        monkeypatch.setattr(os, "preadv", preadv)
        return attempts

    return begin


def read(path: Path) -> bytes:
    out = bytearray(50)
    open_random_access(path).read_into(memoryview(out), 100)
    return bytes(out)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT])
def test_errors_that_pass_are_waited_for_and_told(
    place: Path,
    fail: Callable[[int, int], list[int]],
    number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail(number, 2)
    with caplog.at_level(logging.WARNING, "salamandra"):
        assert read(place) == CONTENTS[100:150]
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" follows in ")[0].rpartition("; ")[2] for line in told] == [
        "attempt 2 of 6",
        "attempt 3 of 6",
    ]
    assert all(line.startswith(f"{place}: reading at byte 100 failed") for line in told)


def test_an_error_that_stays_ends_after_so_many_attempts(
    place: Path, fail: Callable[[int, int], list[int]]
) -> None:
    attempts = fail(errno.EIO, 100)
    with pytest.raises(
        DataError, match=r"shard\.bin: reading at byte 100 failed 6 times.*Input/output error"
    ):
        read(place)
    assert len(attempts) == retries.ATTEMPTS


@pytest.mark.parametrize("number", [errno.EBADF, errno.EACCES, errno.EINVAL])
def test_lasting_errors_are_told_at_once(
    place: Path, fail: Callable[[int, int], list[int]], number: int
) -> None:
    attempts = fail(number, 1)
    with pytest.raises(DataError, match="reading at byte 100 failed: "):
        read(place)
    assert len(attempts) == 1


def test_a_stale_file_is_opened_again_and_must_be_as_long(
    place: Path, fail: Callable[[int, int], list[int]]
) -> None:
    """As when a server has given the path another inode: the old one would stay stale for ever."""
    file, out = open_random_access(place), bytearray(50)
    place.unlink()
    place.write_bytes(bytes(reversed(CONTENTS)))
    fail(errno.ESTALE, 1)
    file.read_into(memoryview(out), 100)
    assert bytes(out) == bytes(reversed(CONTENTS))[100:150]
    place.unlink()
    place.write_bytes(CONTENTS + b"more")
    fail(errno.ESTALE, 1)
    with pytest.raises(DataError, match="has 204 bytes, and had 200 when it was opened"):
        file.read_into(memoryview(out), 100)


def test_opening_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, attempts = open, []

    def failing(*arguments: Any, **options: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return real(*arguments, **options)

    monkeypatch.setattr("builtins.open", failing)
    file = open_random_access(place)
    monkeypatch.undo()
    out = bytearray(5)
    file.read_into(memoryview(out), 0)
    assert bytes(out) == CONTENTS[:5]
