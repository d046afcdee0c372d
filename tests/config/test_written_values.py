"""A value of a configuration is what was written: paths, numbers in other notations, dates, comments, merge keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.foundation.written_paths import WrittenPathError, expanded_path
from megatron_salamandra.foundation.yaml_files import parse_yaml, plain_yaml_value


@pytest.fixture(autouse=True)
def _a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)


def in_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "run.yaml").write_text(f"extends: tiny\n{text}")
    return str(tmp_path / "run.yaml")


PATHS = [
    ("~/runs/x", "/home/me/runs/x"),
    ("~", "/home/me"),
    ("$SCRATCH/runs", "/scratch/me/runs"),
    ("${SCRATCH}/runs", "/scratch/me/runs"),
    ("a/$SCRATCH", "a//scratch/me"),
    ("runs/5$", "runs/5$"),
    ("runs/a~b", "runs/a~b"),
    ("2025-11-28", "2025-11-28"),
    ("0x1f", "0x1f"),
    ("1:30", "1:30"),
    ("017", "017"),
    ("no", "no"),
]


@pytest.mark.parametrize(("written", "meant"), PATHS)
def test_a_path_means_the_same_in_a_file_and_in_an_override(written: str, meant: str, tmp_path: Path) -> None:
    assert load_run_config("tiny", [f"run_dir={written}"]).run_dir == Path(meant)
    if written != "~":  # which is null in YAML
        assert load_run_config(in_file(tmp_path, f"run_dir: {written}")).run_dir == Path(meant)


@pytest.mark.parametrize("key", ["run_dir", "data.blend", "data.continue_from"])
@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("$NOWHERE/x", "the variable NOWHERE is not set"),
        ("${NOWHERE}/x", "the variable NOWHERE is not set"),
        ("$EMPTY/x", "the variable EMPTY is empty"),
        ("${oc.env:HOME}/x", "is not a variable"),
        ("${HOME/x", "is not a variable"),
        ("~no-such-user/x", "there is no user no-such-user"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(key: str, written: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_run_config("tiny", [f"{key}={written}"])
    assert str(caught.value).startswith(f"command line: {key}: ")
    assert "\n  " in str(caught.value)


@pytest.mark.parametrize(
    "written",
    ["a#b", "a #b", "#a", "a: b", "x]", "- x", "*x", "&x", "!x", "1:30", "1.2.3", "<<", "="],
)
def test_on_the_command_line_text_is_text(written: str) -> None:
    assert load_run_config("tiny", [f"model.name={written}"]).model.name == written
    assert load_run_config("tiny", [f"run_dir={written}"]).run_dir == Path(written)


def test_quotes_and_null_of_an_override() -> None:
    assert load_run_config("tiny", ["run_dir='a b'"]).run_dir == Path("a b")
    assert load_run_config("tiny", ["run_dir=null"]).run_dir is None
    assert load_run_config("tiny", ["run_dir="]).run_dir is None
    assert load_run_config("tiny", ["run_dir='[x]'"]).run_dir == Path("[x]")
    assert load_run_config("tiny", ["run_dir='null'"]).run_dir == Path("null")
    with pytest.raises(ConfigError, match="null byte"):
        load_run_config("tiny", ["run_dir=a\0b"])


@pytest.mark.parametrize(
    "written", ["0o17", "0x1f", "017", "0b11", "1:30", "5 # five", "2025-11-28", "1_", "1,000"]
)
def test_a_number_is_decimal(written: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a whole number") as caught:
        load_run_config("tiny", [f"training.steps={written}"])
    assert f"training.steps = {written} (text)" in str(caught.value)
    assert "decimal digits" in str(caught.value)
    if "#" not in written:
        with pytest.raises(ConfigError, match="expected a whole number"):
            load_run_config(in_file(tmp_path, f"training: {{steps: '{written}'}}"))
        with pytest.raises(ConfigError, match="expected a whole number"):
            load_run_config(in_file(tmp_path, f"training:\n  steps: {written}\n"))


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1000", 1000),
        ("1_000", 1000),
        ("+5", 5),
        ("1e3", 1000.0),
        ("2.5E-4", 2.5e-4),
        (".5", 0.5),
        ("5.", 5.0),
    ],
)
def test_decimal_notations(written: str, number: float) -> None:
    assert parse_yaml(written, "x") == number == plain_yaml_value(written)
    assert type(parse_yaml(written, "x")) is type(number)


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", "1e400"])
def test_numbers_that_are_none_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="expected a finite number"):
        load_run_config("tiny", [f"optimizer.lr={written}"])


def test_what_was_meant_is_told() -> None:
    for override, remedy in (
        ("data.new_text=ca", "write [ca]"),
        ("data.new_text=(ca, es)", "write [ca, es]"),
        ("training.steps=1e3", "write 1000"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_run_config("tiny", [override])
        assert str(caught.value).splitlines()[1] == f"  {remedy}"
    assert load_run_config("tiny", ["data.new_text=[ca, no]", "data.continue_from=x"]).data.new_text == (
        "ca",
        "no",
    )


@pytest.mark.parametrize("written", ["5", "1_0", "true", "1e3"])
def test_a_number_is_no_path_and_no_name(written: str, tmp_path: Path) -> None:
    for load in (
        lambda: load_run_config("tiny", [f"run_dir={written}"]),
        lambda: load_run_config(in_file(tmp_path, f"run_dir: {written}")),
    ):
        with pytest.raises(ConfigError, match="expected a path\n  for a path of that name put ./ before it"):
            load()
    with pytest.raises(ConfigError, match="expected text\n  for that text write '.*', in quotes"):
        load_run_config("tiny", [f"model.name={written}"])


@pytest.mark.parametrize("key", ["run_dir", "data.blend", "data.continue_from", "initialize_from"])
@pytest.mark.parametrize("written", ["s3://bucket/run", "file:///tmp/run", "simplecache::s3://b/run"])
def test_a_url_is_no_path(key: str, written: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .* is a URL; expected a path\n  mount it"):
        load_run_config("tiny", [f"{key}={written}"])


def test_blanks_are_no_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run_dir: a path of blanks alone\n  name a path"):
        load_run_config(in_file(tmp_path, "run_dir: '  '"))


@pytest.mark.parametrize("written", ["3", "true", "text", "[a]", "2.5"])
def test_phases_that_are_no_section(written: str, tmp_path: Path) -> None:
    for load in (
        lambda: load_run_config("tiny", [f"phases={written}"]),
        lambda: load_run_config(in_file(tmp_path, f"phases: {written}")),
    ):
        with pytest.raises(ConfigError, match="phases = .*; expected a section with keys below it"):
            load()


def test_merge_keys(tmp_path: Path) -> None:
    assert load_run_config(in_file(tmp_path, "training:\n  <<: {steps: 7}\n")).training.steps == 7
    both = "training:\n  <<: {steps: 7, seed: 1}\n  steps: 8\n"
    training = load_run_config(in_file(tmp_path, both)).training
    assert (training.steps, training.seed) == (8, 1)
    with pytest.raises(ConfigError, match="written twice"):
        load_run_config(in_file(tmp_path, "training:\n  steps: 7\n  steps: 8\n"))


def test_a_null_byte_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="null byte"):
        load_run_config(in_file(tmp_path, 'run_dir: "a\\0b"'))


def test_the_resolved_configuration_has_the_paths_that_were_meant(tmp_path: Path) -> None:
    config = load_run_config("tiny", ["run_dir=$SCRATCH/x", "data.blend=~/b.yaml"])
    (tmp_path / "resolved.yaml").write_text(config.to_yaml())
    again = load_run_config(str(tmp_path / "resolved.yaml"))
    assert (again.run_dir, again.data.blend) == (Path("/scratch/me/x"), Path("/home/me/b.yaml"))


def test_extends_takes_written_paths_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    (tmp_path / "base.yaml").write_text("extends: tiny\ntraining: {steps: 3}\n")
    (tmp_path / "run.yaml").write_text("extends: $HERE/base.yaml\n")
    assert load_run_config("$HERE/run.yaml").training.steps == 3
    (tmp_path / "run.yaml").write_text("extends: $NOWHERE/base.yaml\n")
    with pytest.raises(ConfigError, match="NOWHERE is not set"):
        load_run_config(str(tmp_path / "run.yaml"))


def test_existing_names_and_urls_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a$NOWHERE").touch()
    assert expanded_path("a$NOWHERE", existing_as_written=True) == "a$NOWHERE"
    assert expanded_path("s3://bucket/$NOWHERE") == "s3://bucket/$NOWHERE"
    with pytest.raises(WrittenPathError, match="null byte"):
        expanded_path("a\0b")


@pytest.mark.parametrize(
    "text",
    ["training: &x\n  steps: *x\n", "a: &x [*x]\n", "a: &x {b: {c: *x}}\n", "a: " + "[" * 3000 + "]" * 3000],
    ids=["section", "list", "deeper", "deep"],
)
def test_what_contains_itself_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.yaml: not readable as YAML: nested too deeply, or contains itself"
    ):
        load_run_config(in_file(tmp_path, text))
    assert parse_yaml("a: &x [1]\nb: *x\nc: *x", "x") == {"a": [1], "b": [1], "c": [1]}


def test_odd_keys_and_huge_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key 1 is not text\n  write '1', in quotes"):
        load_run_config(in_file(tmp_path, "1: 2\n"))
    for override in ("training.steps=99999999999999999999", "training.seed=-99999999999999999999"):
        with pytest.raises(ConfigError, match="does not fit into 64 bits"):
            load_run_config("tiny", [override])
