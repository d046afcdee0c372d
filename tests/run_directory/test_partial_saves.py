"""Saves begin and end whatever earlier ones left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from megatron_salamandra.run_directory import (
    begin_partial,
    complete_checkpoints,
    delete_checkpoint,
    drop_partial,
    publish_partial,
)


@pytest.fixture
def undeletable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that the file system does not let go, as with files that another host has open."""

    def rmtree(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", rmtree)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_died_is_cleared_away_and_a_complete_save_gets_its_name(tmp_path: Path) -> None:
    (tmp_path / ".partial-step-00000003" / "shards").mkdir(parents=True)
    (tmp_path / ".partial-deleted-1234").mkdir()
    partial = begin_partial(tmp_path, 4, "token")
    assert (partial / "shards").is_dir()
    assert names(tmp_path) == [".partial-step-00000004"]
    publish_partial(partial, tmp_path / "step-00000004")
    assert names(tmp_path) == ["step-00000004"]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    drop_partial(begin_partial(tmp_path, 4, "token"))
    assert names(tmp_path) == []


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    (elsewhere / "shards").mkdir(parents=True)
    root.mkdir()
    (root / ".partial-step-00000004").symlink_to(elsewhere)
    (root / ".partial-step-00000003").symlink_to(tmp_path / "nowhere")
    (root / "step-00000002").symlink_to(elsewhere)
    delete_checkpoint(root / "step-00000002")
    partial = begin_partial(root, 4, "token")
    assert partial.resolve().is_relative_to(root.resolve())
    assert names(root) == [".partial-step-00000004"]
    assert (elsewhere / "shards").is_dir()


@pytest.mark.usefixtures("undeletable")
def test_what_cannot_be_deleted_does_not_stop_later_saves(tmp_path: Path) -> None:
    (tmp_path / ".partial-step-00000004" / "shards").mkdir(parents=True)
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "manifest.json").touch()
    (tmp_path / "step-00000002").mkdir()
    (tmp_path / "step-00000002" / "manifest.json").touch()
    delete_checkpoint(tmp_path / "step-00000001")
    delete_checkpoint(tmp_path / "step-00000002")
    assert complete_checkpoints(tmp_path) == []
    for step in (4, 5):
        partial = begin_partial(tmp_path, step, "token")
        publish_partial(partial, tmp_path / f"step-{step:08d}")
        assert (tmp_path / f"step-{step:08d}" / "shards").is_dir()


def test_owners_do_not_share_a_place(tmp_path: Path) -> None:
    cut_off = begin_partial(tmp_path, 4, "before")
    later = begin_partial(tmp_path, 4, "after")
    assert not cut_off.exists()
    (cut_off / "shards").mkdir(parents=True)  # its writers are still at it
    (cut_off / "shards" / "__0_0.distcp").touch()
    assert list((later / "shards").iterdir()) == []
