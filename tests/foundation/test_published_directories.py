"""A directory that takes its name when it is finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.foundation.atomic_files import publish_directory


def directory(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_directory_takes_a_free_name_or_that_of_another(tmp_path: Path) -> None:
    publish_directory(directory(tmp_path / ".new", "first"), tmp_path / "out")
    publish_directory(directory(tmp_path / ".new", "second"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/file").read_text() == "second"


def test_what_was_there_stays_if_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_directory(directory(tmp_path / ".new", "first"), tmp_path / "out")
    new = directory(tmp_path / ".new", "second")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == new:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        publish_directory(new, tmp_path / "out")
    assert (tmp_path / "out/file").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new", "out"]
