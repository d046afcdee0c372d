"""One walker for text and shards: links are followed, and nothing that cannot be searched vanishes."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from user_without_rights import as_a_user_without_rights

from salamandra_data.errors import DataError
from salamandra_data.storage import RemotePath, files_below, is_directory, is_file


def make(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(b"")


def names_below(directory: Path) -> list[str]:
    return sorted(str(path)[len(str(directory)) + 1 :] for path in files_below(directory))


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    make(tmp_path, "tree/a", "tree/.hidden", "tree/.work/b", "elsewhere/deep/c")
    (tmp_path / "tree/more").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/up").symlink_to("../tree")
    (tmp_path / "elsewhere/deep/self").symlink_to("self")
    (tmp_path / "file").symlink_to("tree/a")
    assert names_below(tmp_path / "tree") == ["a", "more/deep/c"]
    assert names_below(tmp_path)[:2] == ["elsewhere/deep/c", "elsewhere/up/a"]
    assert "file" in names_below(tmp_path)


def test_a_link_to_nothing_may_have_been_a_directory(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "es").symlink_to("/nowhere/es")
    with pytest.raises(DataError, match=r"es: is a link to /nowhere/es, where there is no file and no dir"):
        names_below(tmp_path)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])  # may not be listed, or its files not reached
def test_a_directory_that_may_not_be_searched_is_an_error(tmp_path: Path, mode: int) -> None:
    make(tmp_path, "tree/a", "tree/closed/b")
    (tmp_path / "link").symlink_to("tree/closed")
    for path in (tmp_path, tmp_path / "tree"):
        path.chmod(0o755)
    closed = tmp_path / "tree" / "closed"
    closed.chmod(mode)
    try:
        with as_a_user_without_rights(tmp_path):
            for directory in (tmp_path / "tree", closed, tmp_path / "link"):
                with pytest.raises(DataError, match="may not be read by this user.*\n.*searchable"):
                    names_below(directory)
    finally:
        closed.chmod(0o700)


def test_what_lies_behind_a_closed_directory_is_not_called_missing(tmp_path: Path) -> None:
    make(tmp_path, "closed/below/a")
    (tmp_path / "closed").chmod(0)
    try:
        with as_a_user_without_rights(tmp_path):
            for asked in (is_directory, is_file):
                with pytest.raises(DataError, match="closed: may not be read|closed/below: may not be read"):
                    asked(tmp_path / "closed" / "below" / "a")
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_pipes_and_names_that_cannot_be_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert names_below(tmp_path) == []
    for name in ("x" * 300, "a\0b"):
        assert not is_file(tmp_path / name) and not is_directory(tmp_path / name)


def test_a_remote_directory_that_may_not_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = fsspec.filesystem("memory")
    for name in ("a", "closed/b"):
        filesystem.pipe_file(f"/tree/{name}", b"")
    whole = MemoryFileSystem.ls

    def ls(system: MemoryFileSystem, path: str, *arguments: object, **options: object) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Forbidden")
        return whole(system, path, *arguments, **options)

    try:
        assert sorted(path.name for path in files_below(RemotePath("memory://tree"))) == ["a", "b"]
        monkeypatch.setattr(MemoryFileSystem, "find", AbstractFileSystem.find)  # as many file systems have it
        assert sorted(path.name for path in files_below(RemotePath("memory://tree"))) == ["a", "b"]
        monkeypatch.setattr(MemoryFileSystem, "ls", ls)
        with pytest.raises(DataError, match="tree/closed: may not be listed"):
            list(files_below(RemotePath("memory://tree")))
    finally:
        monkeypatch.undo()
        filesystem.rm("/tree", recursive=True)
