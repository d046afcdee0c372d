"""What a study writes is no input of the next command, and never lies over what the user has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from declaration_in_all import ARTICLE_1_IN_ALL

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.readers import find_inputs
from salamandra_data.tokenizer_study import StudyDocuments


def corpus(directory: Path) -> Path:
    directory.mkdir()
    words = ARTICLE_1_IN_ALL["en"].split()
    records = [
        {"text": f"{number} {' '.join(words[number % 9 :])}", "language": "en"} for number in range(300)
    ]
    (directory / "en.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return directory


def experiment(source: Path, out: Path) -> int:
    command = [
        "data",
        "fertility-alpha",
        "--input",
        str(source),
        "--vocab-size",
        "450",
        "--bytes-budget",
        "20000",
    ]
    return main([*command, "--alphas", "0", "1", "--held-out-fraction", "0.2", "--out", str(out)])


def test_the_two_sides_of_an_experiment_are_not_read_with_the_corpus(tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus")
    assert experiment(source, tmp_path / "alpha") == 0
    with pytest.warns(match="left out held-out.jsonl, training.jsonl: by-products"):
        assert [path.name for path in find_inputs([tmp_path])] == ["en.jsonl"]


@pytest.mark.parametrize("command", ["fertility", "fertility-alpha"])
def test_a_study_inside_its_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small_tokenizer: Path, command: str
) -> None:
    source = corpus(tmp_path / "corpus")
    options = ["--tokenizers", str(small_tokenizer)] if command == "fertility" else []
    options += [] if options else ["--vocab-size", "450", "--bytes-budget", "20000"]
    assert main(["data", command, "--input", str(source), "--out", str(source / "out"), *options]) == 1
    assert "is inside --input" in capsys.readouterr().err and not (source / "out").exists()


def test_a_training_file_of_the_users_own_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus(tmp_path / "corpus")
    mine = tmp_path / "alpha" / "training.jsonl"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert experiment(source, tmp_path / "alpha") == 1
    assert "training.jsonl: is there already" in capsys.readouterr().err and mine.read_text() == "mine"


def test_documents_are_not_read_from_what_a_study_writes_over(tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus")
    with pytest.raises(DataError, match="is inside --input"):
        list(StudyDocuments([source], out=source / "deep" / "out"))
