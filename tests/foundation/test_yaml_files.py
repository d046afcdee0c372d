"""YAML as people mean it."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from megatron_salamandra.foundation.yaml_files import YamlError, parse_yaml, read_yaml_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("true", True), ("2e-4", 2e-4), ("1E3", 1000.0), ("0.5", 0.5), ("7", 7)],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert parse_yaml(text, "here") == value


def test_exact_reading_keeps_the_digits_of_decimals() -> None:
    assert parse_yaml("{a: 0.1, b: 2, c: 1e400, no: 1}", "here", exact=True) == {
        "a": "0.1",
        "b": 2,
        "c": "1e400",
        "no": 1,
    }


def test_a_merge_key_stands_for_the_keys_it_brings() -> None:
    assert parse_yaml("base: &b {steps: 7}\nrun: {<<: *b, seed: 1}", "here")["run"] == {"steps": 7, "seed": 1}


@pytest.mark.parametrize("exact", [False, True])
def test_a_key_written_twice_is_refused_with_its_line(exact: bool) -> None:
    with pytest.raises(YamlError, match="here:2: .*'a' is written twice"):
        parse_yaml("a: 1\na: 2\n", "here", exact=exact)


@pytest.mark.parametrize("contents", [b"- a\n", b"1: x\n", b"\xff", b"a: [", b"!!python/object:os.system x"])
def test_files_that_hold_no_mapping_are_refused_by_name(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(contents)
    with pytest.raises(YamlError, match=r"run\.yaml"):
        read_yaml_mapping(path)


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join(['*' + before] * 9)}]}}\n"
    for before, name in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values"),
        (MERGES, "more than 100,000 values"),
        ("[" * 100_000, "nested too deeply"),
        ("a: " * 2000, "x.yaml"),
        ("a: " + "9" * 10_000, "not readable as YAML"),
        ("a: " + "x" * (5 << 20), "are the most"),
        ("a: &a\n  b: *a\n", "contains itself"),
    ],
    ids=["aliases", "merges", "brackets", "colons", "digits", "size", "circle"],
)
def test_hostile_yaml_is_refused_at_once(text: str, message: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(YamlError, match=message) as caught:
        parse_yaml(text, "x.yaml")
    assert time.process_time() - began < 20 and len(str(caught.value)) < 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_aliases_that_people_write_stay() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n", "x.yaml")["b"] == {"x": 1, "y": 2}
