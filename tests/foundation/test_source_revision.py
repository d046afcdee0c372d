"""Which sources an installation was made from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from megatron_salamandra.foundation import source_revision as revision


def installed_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as pip leaves it: no repository of ours around it."""
    package = tmp_path / "site-packages/megatron_salamandra"
    (package / "foundation").mkdir(parents=True)
    shutil.copy(revision.__file__, package / "foundation/source_revision.py")
    monkeypatch.setattr(revision, "_PACKAGE", package)
    monkeypatch.setattr(revision, "REVISION_FILE", package / "revision.txt")
    return package


def test_an_image_knows_the_revision_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = installed_copy(tmp_path, monkeypatch)
    (package / "revision.txt").write_text("0123abc\n")
    assert revision.source_revision() == "0123abc"


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_an_installation_without_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    package = installed_copy(tmp_path, monkeypatch)
    if text is not None:
        (package / "revision.txt").write_text(text)
    assert revision.source_revision() is None


def test_somebody_elses_repository_around_an_installation_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = installed_copy(tmp_path, monkeypatch)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    (package / "revision.txt").write_text("0123abc\n")
    assert revision.source_revision() == "0123abc"
