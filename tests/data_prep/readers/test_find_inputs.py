"""Which files paths, directories and patterns mean; nothing is passed over silently or read twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from user_without_rights import as_a_user_without_rights

from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers import find_inputs


def make(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(b"")


def found_below(directory: Path, *entries: str) -> list[str]:
    return [
        str(path.relative_to(directory)) for path in find_inputs([directory / entry for entry in entries])
    ]  # type: ignore[arg-type]


def test_inputs_are_files_directories_and_patterns(tmp_path: Path) -> None:
    make(tmp_path, "b/2.jsonl", "b/1.jsonl.gz", "b/.hidden.jsonl", "b/.work/3.jsonl", "a.txt", "c.parquet")
    assert found_below(tmp_path, "a.txt", "b", "*.parquet") == [
        "a.txt",
        "b/1.jsonl.gz",
        "b/2.jsonl",
        "c.parquet",
    ]


def test_what_a_directory_or_pattern_holds_besides_is_told(tmp_path: Path) -> None:
    make(
        tmp_path, "a/1.jsonl", "a/deep/2.txt", "a/3.jsonl.xz", "a/deep/notes.md", "a/SOURCES.json", "b.jsonl"
    )
    with pytest.warns(DataWarning) as caught:
        assert found_below(tmp_path, "a") == ["a/1.jsonl", "a/deep/2.txt"]
    assert str(caught[0].message) == (
        f"{tmp_path}/a: 3 of 5 files are left out, because of their endings: "
        "'3.jsonl.xz', 'SOURCES.json', 'notes.md'"
    )
    with pytest.warns(DataWarning, match=r"\*: directories are left out of a pattern without \*\*: 'a'"):
        assert found_below(tmp_path, "*") == ["b.jsonl"]
    (tmp_path / "b.jsonl").unlink()
    with (
        pytest.warns(DataWarning),
        pytest.raises(DataError, match=r"deep: no input file.*; it holds 'notes\.md'; looked"),
    ):
        (tmp_path / "a/deep/2.txt").unlink()
        found_below(tmp_path, "a", "a/deep")


def test_the_command_line_shows_what_is_left_out_as_one_line(tmp_path: Path) -> None:
    make(tmp_path, "text/1.jsonl", "text/2.jsonl.xz")
    process = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "megatron_salamandra.cli",
                "data",
                "train-tokenizer",
                "--vocab-size",
                "999",
            ),
            *("--input", str(tmp_path / "text"), "--out", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
    )
    assert process.stderr.splitlines()[0] == (
        f"warning: {tmp_path}/text: 1 of 2 files are left out, because of their endings: '2.jsonl.xz'"
    )


def test_links_to_directories_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "corpus/ca/1.jsonl", "elsewhere/deep/2.jsonl")
    (tmp_path / "corpus/more").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/deep/up").symlink_to("../../corpus")
    (tmp_path / "elsewhere/self").symlink_to("self")
    assert found_below(tmp_path, "corpus") == ["corpus/ca/1.jsonl", "corpus/more/deep/2.jsonl"]
    (tmp_path / "corpus/again").symlink_to("ca")
    with pytest.raises(DataError, match="listed twice"):
        found_below(tmp_path, "corpus")


def test_a_link_to_nothing_is_no_input(tmp_path: Path) -> None:
    make(tmp_path, "1.jsonl")
    (tmp_path / "2.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"2\.jsonl: is a link to gone\.jsonl, where there is no file"):
        found_below(tmp_path, ".")


def test_a_directory_that_may_not_be_searched_is_not_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "1.jsonl", "closed/2.jsonl")
    (tmp_path / "closed").chmod(0)
    with as_a_user_without_rights(tmp_path), pytest.raises(DataError, match="closed: may not be read"):
        found_below(tmp_path, ".")
    (tmp_path / "closed").chmod(0o700)


def test_inputs_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "nothing").mkdir()
    for entry, message in (
        ("a.csv", "does not tell a known format"),
        ("nowhere.jsonl", "no such file"),
        ("*.txt", "no such file"),
        ("nothing", "no input file in this directory"),
    ):
        with pytest.raises(DataError, match=message):
            find_inputs([tmp_path / entry])
    with pytest.raises(DataError, match="listed twice"):
        find_inputs([tmp_path / "a.jsonl", tmp_path / "nothing" / ".." / "a.jsonl"])
