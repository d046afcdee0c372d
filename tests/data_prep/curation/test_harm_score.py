"""A user's own score for harmful content is found, called and not believed without a look."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from curation_run import curated, kept, removed, samples, write_records

from salamandra_data.curation import HarmScore
from salamandra_data.errors import DataError

RECORDS = [{"text": text, "language": "en"} for text in ("A good text.", "The poison was strong.")]
MODULE = """
import math

def score(text, language):
    assert language == "en"
    return 0.9 if "poison" in text else 0.1

def nothing(text, language):
    return None

def nan(text, language):
    return math.nan

def percent(text, language):
    return 90.0 if "poison" in text else 0.1

def fails(text, language):
    raise KeyError("missing")

THRESHOLD = 0.5
"""


@pytest.fixture
def harm_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that is in ``tmp_path`` and nowhere on Python's path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"harm_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    return name


def test_documents_above_the_limit_go(tmp_path: Path, harm_module: str) -> None:
    harm = HarmScore(f"{harm_module}:score", 0.5, tmp_path)
    assert removed(curated(tmp_path, RECORDS, harm=harm)) == {"harm": 1}
    assert [document["text"] for document in kept(tmp_path)] == ["A good text."]
    assert samples(tmp_path, "harm")[0]["detail"] == "harm 0.900"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", r"gives None for document .*a\.jsonl:1\n  it must return a number in \[0, 1\]"),
        ("nan", r"gives nan for document .*a\.jsonl:1\n"),
        ("percent", r"gives 90\.0 for document .*a\.jsonl:2\n"),
        ("fails", r"KeyError on document .*a\.jsonl:1: 'missing'"),
        ("THRESHOLD", r"is float, not a function"),
        ("absent", r"AttributeError: .*\n  give module:function of a module in "),
        ("", r"AttributeError: .*\n  give module:function of a module in "),
    ],
)
def test_what_is_no_score_is_told_with_function_document_and_value(
    tmp_path: Path, harm_module: str, function: str, message: str
) -> None:
    named = f"{harm_module}:{function}"
    with pytest.raises(DataError, match=f"--harm-score {named}: {message}"):
        curated(tmp_path, RECORDS, harm=HarmScore(named, directory=tmp_path))


def test_a_module_that_cannot_be_imported_is_told_before_anything_is_read(
    tmp_path: Path, harm_module: str
) -> None:
    (tmp_path / f"{harm_module}_2.py").write_text("def broken(:\n")
    for module, error in ((f"{harm_module}_2", "SyntaxError"), (f"{harm_module}_3", "ModuleNotFoundError")):
        with pytest.raises(DataError, match=rf"--harm-score {module}:f: {error}: "):
            curated(tmp_path, RECORDS, harm=HarmScore(f"{module}:f", directory=tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_task_that_starts_in_another_directory_finds_the_module(tmp_path: Path, harm_module: str) -> None:
    pickled = pickle.dumps(HarmScore(f"{harm_module}:score", directory=tmp_path))
    program = f"import pickle; print(pickle.loads({pickled!r}).scorer()('a:1', 'poison', 'en'))"
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.stdout == "0.9\n", done.stderr


def test_the_command_finds_a_module_in_the_current_directory_also_in_worker_processes(
    tmp_path: Path, harm_module: str
) -> None:
    for number in range(2):
        write_records(tmp_path / f"in/{number}.jsonl", RECORDS)
    command = [
        sys.executable,
        "-P",
        "-m",
        "megatron_salamandra.cli",
        "data",
        "curate",
        "--input",
        "in",
        "--out",
        "out",
    ]
    command += ["--harm-score", f"{harm_module}:score", "--no-check-language", "--no-score", "--workers", "2"]
    command += ["--keep-exact", "--keep-near", "--keep-paragraphs"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "harm" in done.stdout.splitlines()[0] and len(kept(tmp_path)) == 2
