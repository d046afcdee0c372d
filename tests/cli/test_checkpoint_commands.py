"""``salamandra checkpoint`` where there is no checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra import cli


def test_listing_what_is_no_directory_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["checkpoint", "list", str(tmp_path / "typo")]) == 2
    answer = capsys.readouterr()
    assert answer.err.splitlines()[0] == f"{tmp_path / 'typo'}: no such directory"
    assert answer.out == ""
    (tmp_path / "file").touch()
    assert cli.main(["checkpoint", "list", str(tmp_path / "file")]) == 2
    assert "is a file, not a directory" in capsys.readouterr().err


def test_a_run_without_checkpoints_yet_is_listed_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["checkpoint", "list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no checkpoints\n"


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_checkpoint_that_is_not_there_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["checkpoint", command, str(tmp_path / "typo")]) != 0
    assert str(tmp_path / "typo") in capsys.readouterr().err
