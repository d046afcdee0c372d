"""A run that ended can be started again as its message says, and never passes over what changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from curation_run import curated, kept, removed

from salamandra_data.errors import DataError

GOOD = {"text": "A good text.", "language": "en"}


def texts(directory: Path) -> list[str]:
    return [document["text"] for document in kept(directory)]


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """A directory with a run that ended at a malformed line of its second file."""
    with pytest.raises(DataError, match=r"b\.jsonl:1: .*\n  mend the line, or pass over .* --on-error skip"):
        curated(tmp_path, {"a.jsonl": [GOOD], "b.jsonl": [{"text": 7, "language": "en"}], "c.jsonl": [GOOD]})
    return tmp_path


def mtime(directory: Path, number: int) -> int:
    return (directory / f"out/.stages/counts/filter-{number:06d}").stat().st_mtime_ns


def again(directory: Path, **options: Any) -> dict[str, Any]:
    return curated(directory, {}, **options)


def test_a_mended_line_lets_the_same_command_go_on(failed: Path) -> None:
    before = mtime(failed, 0)
    (failed / "in/b.jsonl").write_text('{"text": "Mended.", "language": "en"}\n')
    again(failed)
    assert texts(failed) == ["A good text.", "Mended.", "A good text."]
    assert mtime(failed, 0) == before


def test_passing_over_malformed_lines_lets_the_command_go_on(failed: Path) -> None:
    before = mtime(failed, 0)
    assert removed(again(failed, on_error="skip")) == {"malformed": 1}
    assert texts(failed) == ["A good text.", "A good text."]
    assert mtime(failed, 0) == before


def test_a_file_that_changed_after_it_was_read_is_read_again(failed: Path) -> None:
    (failed / "in/a.jsonl").write_text('{"text": "Another text.", "language": "en"}\n')
    again(failed, on_error="skip")
    assert texts(failed) == ["Another text.", "A good text."]


def test_a_file_with_lines_passed_over_is_read_again_when_they_are_to_end_the_run(tmp_path: Path) -> None:
    bad = {"text": 7, "language": "en"}
    files = {"a.jsonl": [bad, GOOD], "b.jsonl": [GOOD]}
    curated(tmp_path, files, on_error="skip")
    (
        tmp_path / "out/.stages/run/filter/completions/00001"
    ).unlink()  # as if it had been interrupted before that
    with pytest.raises(DataError, match=r"a\.jsonl:1: 'text' is a number"):
        again(tmp_path)


def test_a_finished_run_is_refused_when_its_input_changed(tmp_path: Path) -> None:
    curated(tmp_path, [GOOD])
    again(tmp_path)
    (tmp_path / "in/a.jsonl").write_text('{"text": "Another text.", "language": "en"}\n')
    with pytest.raises(
        DataError, match=r"out: holds a run on other input: .*a\.jsonl has changed since it was read"
    ):
        again(tmp_path)
    with pytest.raises(DataError, match="holds a run on other input or with other options"):
        again(tmp_path, exact=True)


def test_lines_that_a_finished_run_passed_over_are_told_when_they_are_to_end_it(tmp_path: Path) -> None:
    curated(tmp_path, [{"text": 7, "language": "en"}, GOOD], on_error="skip")
    with pytest.raises(DataError, match=r"a\.jsonl has malformed lines, which were passed over"):
        again(tmp_path)
    assert removed(again(tmp_path, on_error="skip")) == {"malformed": 1}


@pytest.mark.parametrize("name", ["documents/00000-a.jsonl.zst", "curation.html", "curation.json"])
def test_output_that_was_deleted_is_missed(tmp_path: Path, name: str) -> None:
    curated(tmp_path, [GOOD])
    (tmp_path / "out" / name).unlink()
    with pytest.raises(
        DataError, match=rf"{name}: is missing, though the run .*\n  put it back, or remove .*/out and"
    ):
        again(tmp_path)


def test_a_run_of_an_earlier_version_is_refused_in_a_sentence(failed: Path) -> None:
    (failed / "out/.stages/run-identity").rename(failed / "out/.stages/identity")
    with pytest.raises(DataError, match="holds a run that an earlier version of this project started"):
        again(failed)


def test_what_tasks_leave_for_each_other_is_json(failed: Path) -> None:
    (count,) = (failed / "out/.stages/counts").glob("filter-000000")
    assert json.loads(count.read_bytes())["read"] == {"en": {"documents": 1, "utf8_bytes": 12}}
    count.write_bytes(b"\x80\x04N.")  # a pickle of nothing
    with pytest.raises(
        DataError, match=r"filter-000000: cannot be read: .*\n  it is this run's own and damaged"
    ):
        again(failed)
