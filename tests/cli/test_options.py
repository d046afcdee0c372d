"""Options stated once: the command line, the checks, the report and the identity come from one model."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field

from megatron_salamandra.foundation.options import (
    Count,
    OneOf,
    Option,
    OptionError,
    Options,
    PathPattern,
    add_options,
    read_options,
)
from salamandra_data.option_groups import NamedPath

_CHOICE = OneOf()


class Machines(Options):
    title: ClassVar[str] = "machines"

    workers: Annotated[Count | None, Option("how many", decides_output=False)] = None


class Sample(Options):
    places: Annotated[tuple[PathPattern, ...], Option("what to read", metavar="DIR", positional=True)]
    out: Annotated[Path, Option("where to", decides_output=False)]
    least: Annotated[float, Field(ge=0, le=1), Option("100% of it")] = 0.5
    kind: Annotated[Literal["a", "b"], Option("which")] = "a"
    exact: Annotated[bool, Option("keep equal ones", flag="--keep-exact")] = True
    loud: Annotated[bool, Option("say more")] = False
    setting: Annotated[tuple[str, ...], Option("one more", repeat=True)] = ()
    first: Annotated[str | None, Option("one way", one_of=_CHOICE)] = None
    second: Annotated[str | None, Option("another way", one_of=_CHOICE)] = None
    machines: Machines = Machines()


def parse(*words: str, model: type[Options] = Sample) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser, model)
    return read_options(model, parser.parse_args(words))


def test_the_command_line_gives_the_model() -> None:
    options = parse(
        "x", "y", "--out", "o", "--least", "0.25", "--keep-exact", "--setting", "p", "--setting", "q"
    )
    assert options == Sample(
        places=("x", "y"), out=Path("o"), least=0.25, exact=False, setting=("p", "q"), machines=Machines()
    )
    assert parse("x", "--out", "o", "--workers", "3").machines.workers == 3
    assert parse("x", "--out", "o", "--loud").loud


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers: '0' is not a whole number, 1 or more"),
        (["--workers", "1.0"], "--workers: '1.0' is not a whole number, 1 or more"),
        (["--workers", "0x10"], "--workers: '0x10' is not a whole number, 1 or more"),
        (["--least", "1.5"], "--least: '1.5' is not a number from 0 to 1"),
        (["--least", "nan"], "--least: 'nan' is not a number from 0 to 1"),
        (["--kind", "c"], "--kind: 'c' is not one of a, b"),
        (
            ["--out", "$NO_SUCH_VARIABLE/x"],
            "--out: '$NO_SUCH_VARIABLE/x': the variable NO_SUCH_VARIABLE is not set",
        ),
        (["--first", "1", "--second", "2"], "--second: not allowed with argument --first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_told_with_what_is_allowed(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("x", "--out", "o", *words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_contradiction_has_exit_code_2_and_names_the_options() -> None:
    with pytest.raises(ValueError, match="--first and --second exclude each other"):
        Sample(places=("x",), out=Path("o"), first="1", second="2")
    with pytest.raises(OptionError, match="--first and --second exclude each other") as caught:
        read_options(Sample, argparse.Namespace(places=["x"], out=Path("o"), first="1", second="2"))
    assert caught.value.exit_code == 2
    with pytest.raises(OptionError, match="--out is required"):
        read_options(Sample, argparse.Namespace(places=["x"]))


def test_the_report_has_every_option_also_those_at_their_default() -> None:
    report = parse("x", "--out", "o").report()
    assert report == {
        "places": ["x"],
        "out": "o",
        "least": 0.5,
        "kind": "a",
        "exact": True,
        "loud": False,
        "setting": [],
        "first": None,
        "second": None,
        "workers": None,
    }


def test_help_has_each_option_with_its_default_and_its_group() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Sample)
    text = " ".join(parser.format_help().split())
    assert "100% of it (default: 0.5)" in text
    assert "machines: --workers N how many" in text
    assert "keep equal ones --loud" in text  # a switch has no default to show


def test_a_new_option_with_a_default_leaves_the_identity_as_it_was() -> None:
    class Later(Sample):
        threshold: Annotated[float, Option("new")] = 0.8

    before = parse("x", "--out", "o", "--least", "0.25").identity()
    assert parse("x", "--out", "o", "--least", "0.25", model=Later).identity() == before
    assert parse("x", "--out", "o", "--least", "0.25", "--threshold", "0.9", model=Later).identity() != before
    assert len(before) == 64


def test_the_identity_follows_what_decides_the_output_alone() -> None:
    before = parse("x", "--out", "o").identity()
    assert parse("x", "--out", "elsewhere", "--workers", "9").identity() == before
    assert parse("x", "--out", "o", "--least", "0.5", "--kind", "a").identity() == before
    assert parse("x", "--out", "o", "--kind", "b").identity() != before
    assert parse("x", "--out", "o").identity({"files": ["1"]}) != before


def test_the_identity_is_the_same_in_another_process_and_does_not_follow_the_repr() -> None:
    program = (
        "from megatron_salamandra.foundation.options import canonical_hash;"
        "from pathlib import Path;"
        "print(canonical_hash({'b': Path('x'), 'a': (1, 2.5, None, 'ü')}))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        answer = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        # SHA-256 of {"a":[1,2.5,null,"\\u00fc"],"b":"x"}
        assert answer.stdout.strip() == "12ad1c874c0375f60e1eca4243194ae5198676886175dcb6eb763e9e3433ebc5"


def test_an_option_without_a_description_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="Option"):

        class Bare(Options):
            size: int = 1

    with pytest.raises(TypeError, match="stated twice"):

        class Twice(Options):
            workers: Annotated[int, Option("again")] = 1
            machines: Machines = Machines()

    assert issubclass(Options, BaseModel)


def test_paths_mean_what_they_mean_in_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.chdir(tmp_path)
    assert parse("~/a", "${SCRATCH}/*.jsonl", "s3://b/$c", "--out", "$SCRATCH/o") == Sample(
        places=("/home/me/a", "/scratch/*.jsonl", "s3://b/$c"), out=Path("/scratch/o"), machines=Machines()
    )
    (tmp_path / "a$SCRATCH").touch()
    assert parse("a$SCRATCH", "--out", "o").places == ("a$SCRATCH",)  # it exists: that is what is meant


def test_a_named_path_is_expanded_behind_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Named(Options):
        tokenizers: Annotated[tuple[NamedPath, ...], Option("what to compare")]

    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x=~").touch()
    words = ["ours=~/t", "wiki:instructions=$SCRATCH/w", "$SCRATCH/a=b", "x=~", "s3://b/x=1"]
    assert parse("--tokenizers", *words, model=Named).tokenizers == (
        "ours=/home/me/t", "wiki:instructions=/scratch/w", "/scratch/a=b", "x=~", "s3://b/x=1"
    )  # fmt: skip
