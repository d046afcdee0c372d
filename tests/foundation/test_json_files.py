"""JSON lines survive a writer that died, and JSON files are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import (
    JsonError,
    append_json_lines,
    read_json_lines,
    read_json_object,
    write_json,
)


def test_a_torn_line_neither_spoils_the_next_one_nor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_json_lines(path, [{"step": 1}, {"step": 2}])
    with path.open("ab") as stream:
        stream.write(b'{"step": 3, "lo')
    append_json_lines(path, [{"step": 4}])
    assert [record["step"] for record in read_json_lines(path)] == [1, 2, 4]


@pytest.mark.parametrize("torn", [b"\xff\xfe", b"[1, 2]", b'"text"', b"", b"NaN", b'{"a": {"b"'])
def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn + b'\n{"a": 2}\n')
    assert list(read_json_lines(path)) == [{"a": 1}, {"a": 2}]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


def test_objects_come_back_as_they_were_written(tmp_path: Path) -> None:
    contents = {"language": "ελληνικά", "tokens": 2**60, "share": 0.1}
    write_json(tmp_path / "x.json", contents)
    assert read_json_object(tmp_path / "x.json") == contents


@pytest.mark.parametrize("contents", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused_with_the_path(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(contents)
    with pytest.raises(JsonError, match=r"state\.json"):
        read_json_object(path)


def test_a_room_gets_its_own_kind_of_error(tmp_path: Path) -> None:
    class RoomError(UserError):
        pass

    with pytest.raises(RoomError, match="cannot be read"):
        read_json_object(tmp_path / "none.json", error_class=RoomError)
