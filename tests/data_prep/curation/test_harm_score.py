"""A user's own score for harmful content is found, called and not believed without a look."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from curation_run import curated, kept, removed, samples, write_records

from salamandra_data.curation.harm_score import HarmOptions
from salamandra_data.curation.user_code import with_its_file
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
    """The name of a module that is in ``tmp_path``, the current directory, and nowhere on Python's path."""
    name = f"harm_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture(autouse=True)
def path_that_stays() -> Iterator[None]:
    """Whatever is loaded, Python's path is as it was, and no module is hidden by the user's."""
    before = list(sys.path), set(sys.modules)
    yield
    assert sys.path == before[0]
    assert not {name for name in set(sys.modules) - before[1] if name.startswith("harm_of_")}


def test_documents_above_the_limit_go(tmp_path: Path, harm_module: str) -> None:
    assert removed(curated(tmp_path, RECORDS, harm=f"{harm_module}:score")) == {"harm": 1}
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
        (
            "absent",
            r"AttributeError: .*\n  give module:name of a module that this Python can import, or file\.py:name",
        ),
        (
            "",
            r"AttributeError: .*\n  give module:name of a module that this Python can import, or file\.py:name",
        ),
    ],
)
def test_what_is_no_score_is_told_with_function_document_and_value(
    tmp_path: Path, harm_module: str, function: str, message: str
) -> None:
    named = f"{harm_module}:{function}"
    file = tmp_path / f"{harm_module}.py"
    with pytest.raises(DataError, match=f"--harm-score {file}:{function}: {message}"):
        curated(tmp_path, RECORDS, harm=named)


def test_a_module_that_cannot_be_imported_is_told_before_anything_is_read(
    tmp_path: Path, harm_module: str
) -> None:
    (tmp_path / f"{harm_module}_2.py").write_text("def broken(:\n")
    for module, error in ((f"{harm_module}_2", "SyntaxError"), (f"{harm_module}_3", "ModuleNotFoundError")):
        with pytest.raises(DataError, match=rf"--harm-score .*{module}.*:f: {error}: "):
            curated(tmp_path, RECORDS, harm=f"{module}:f")
    assert not (tmp_path / "out").exists()


def test_a_task_that_starts_in_another_directory_finds_the_module(tmp_path: Path, harm_module: str) -> None:
    place = with_its_file(f"{harm_module}:score", tmp_path)
    pickled = pickle.dumps(HarmOptions(harm=place))
    program = (
        "import pickle; from salamandra_data.curation.harm_score import HarmFilter; "
        f"print(HarmFilter(pickle.loads({pickled!r})).score('a:1', 'poison', 'en'))"
    )
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


def test_a_file_is_loaded_from_exactly_its_path_though_a_module_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(MODULE)
    assert removed(curated(tmp_path, RECORDS, harm=f"{tmp_path}/json.py:score")) == {"harm": 1}
    with pytest.raises(DataError, match=r"--harm-score json:score: AttributeError"):
        curated(tmp_path, RECORDS, harm="json:score")
    with pytest.raises(DataError, match=r"--harm-score .*/absent\.py:score: FileNotFoundError"):
        curated(tmp_path, RECORDS, harm="absent.py:score")


def test_a_file_of_code_that_changed_makes_another_run(tmp_path: Path) -> None:
    file = tmp_path / "scores.py"
    file.write_text(MODULE)
    curated(tmp_path, RECORDS, harm=f"{file}:score")
    curated(tmp_path, {}, harm=f"{file}:score")
    file.write_text(MODULE.replace("0.9", "0.2"))
    with pytest.raises(DataError, match="holds a run on other input or with other options"):
        curated(tmp_path, {}, harm=f"{file}:score")
