"""What a command writes beside its documents is no input, and output never lies in input."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.option_groups import InputOptions
from salamandra_data.readers import find_inputs, mark_by_products
from salamandra_data.tokenization import TokenizeJob, tokenize_documents
from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer


def write(path: Path, content: str = '{"text": "a", "language": "ca"}\n') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    """A directory with documents, and samples of what was removed."""
    out = tmp_path / "curated"
    mark_by_products(out, ["removed"])
    mark_by_products(out, ["held-out.jsonl"])
    write(out / "documents" / "00000-ca.jsonl")
    write(out / "removed" / "score.jsonl")
    write(out / "held-out.jsonl")
    return out


def names(*entries: Path | str) -> list[str]:
    return [path.name for path in find_inputs(entries)]


@pytest.mark.parametrize("entry", ["", "*/*.jsonl", "**/*.jsonl", "../curated", "../**/*.jsonl"])
def test_by_products_are_left_out_of_what_is_searched_with_a_notice(curated: Path, entry: str) -> None:
    with pytest.warns(DataWarning, match="left out .*: by-products of an earlier command"):
        assert names(str(curated / entry)) == ["00000-ca.jsonl"]


def test_by_products_behind_a_url_are_left_out_too(curated: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in curated.rglob("*"):
        if path.is_file():
            memory.pipe(f"/by-products/{path.relative_to(curated)}", path.read_bytes())
    with pytest.warns(DataWarning, match="left out held-out.jsonl, removed"):
        assert names("memory://by-products") == ["00000-ca.jsonl"]


def test_by_products_that_are_named_are_read(curated: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert names(curated / "removed" / "score.jsonl") == ["score.jsonl"]
        assert names(str(curated / "removed" / "*.jsonl")) == ["score.jsonl"]
        assert names(curated / "removed") == ["score.jsonl"]


def test_samples_of_a_run_that_wrote_no_marker_are_known_by_its_report(curated: Path) -> None:
    (curated / ".by-products").unlink()
    (curated / "held-out.jsonl").unlink()
    write(curated / "curation.json", "{}")
    with pytest.warns(DataWarning, match="left out removed"):
        assert names(curated) == ["00000-ca.jsonl"]


@pytest.mark.parametrize(
    ("entry", "out"),
    [
        ("in", "in/out"),
        ("in", "in"),
        ("in", "in/part/../out/deep"),
        ("in", "link/out"),
        ("link", "in/out"),
        ("in", "elsewhere/below/out"),
        ("in/**/*.jsonl", "in/out"),
        ("in/*/*.jsonl", "in/out"),
    ],
)
def test_output_inside_input_is_refused(tmp_path: Path, entry: str, out: str) -> None:
    write(tmp_path / "in" / "part" / "a.jsonl")
    write(tmp_path / "elsewhere" / "below" / "deep" / "b.jsonl")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "in" / "linked").symlink_to("../elsewhere")
    with pytest.raises(DataError, match=r"--out .*\n  choose an"):
        find_inputs([str(tmp_path / entry)], out=tmp_path / out)


@pytest.mark.parametrize(
    ("entry", "out"),
    [
        ("in", "out"),
        ("in", "in-out"),
        ("in/part", "in/out"),
        ("in/part/a.jsonl", "in/out"),
        ("in/*/*.jsonl", "in/part/deep/out"),
        ("in/part/*.jsonl", "in/part/out"),
        ("in/part/a.jsonl", "in/part"),
    ],
)
def test_output_beside_input_is_not(tmp_path: Path, entry: str, out: str) -> None:
    write(tmp_path / "in" / "part" / "a.jsonl")
    assert len(find_inputs([str(tmp_path / entry)], out=tmp_path / out)) == 1


def test_by_products_are_not_written_over_while_they_are_read(curated: Path) -> None:
    with pytest.raises(DataError, match=r"held-out.jsonl is what an earlier command wrote there"):
        find_inputs([curated / "held-out.jsonl"], out=curated)


def test_a_file_of_the_users_own_is_not_taken_for_a_by_product(tmp_path: Path) -> None:
    write(tmp_path / "training.jsonl")
    with pytest.raises(DataError, match="training.jsonl: is there already and would be written over"):
        mark_by_products(tmp_path, ["training.jsonl"])


@pytest.mark.parametrize(
    "command",
    [
        ["curate"],
        ["tokenize", "--tokenizer", "tokenizer.model"],
        ["train-tokenizer", "--vocab-size", "500"],
        ["fertility-alpha", "--vocab-size", "500", "--bytes-budget", "1000"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("place", ["in", "in/out", "link/out", "in/deep/er"])
def test_every_command_that_writes_refuses_output_inside_its_input(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in" / "a.jsonl")
    (tmp_path / "link").symlink_to("in")
    assert main(["data", *command, "--input", "in", "--out", place]) != 0
    assert "is inside --input in" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.jsonl"]


def test_what_curation_removed_does_not_come_back_when_the_directory_above_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        '{"text": "menu", "language": "ca"}\n',
        '{"text": "Un document com cal.", "language": "ca"}\n',
    ] * 40
    write(tmp_path / "in" / "a.jsonl", "".join(lines))
    options = ["--no-check-language", "--keep-near", "--keep-exact", "--keep-paragraphs", "--min-score=0.5"]
    assert (
        main(["data", "curate", "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])
        == 0
    )
    assert (tmp_path / "out/removed/score.jsonl").stat().st_size > 0
    capsys.readouterr()
    with pytest.warns(DataWarning, match="left out removed: by-products"):
        assert names(tmp_path / "out") == ["00000-a.jsonl.zst"]


def test_python_users_too_cannot_write_inside_the_input(tmp_path: Path, small_tokenizer: Path) -> None:
    write(tmp_path / "in" / "a.jsonl")
    write(tmp_path / "elsewhere" / "b.jsonl")
    (tmp_path / "in" / "linked").symlink_to("../elsewhere")
    for out in (
        tmp_path / "in" / "out",
        tmp_path / "elsewhere" / "out",
    ):  # where a link in the input leads to
        documents = InputOptions(input=(str(tmp_path / "in"),))
        with pytest.raises(DataError, match="is inside --input"):
            tokenize_documents(TokenizeJob(documents=documents, tokenizer=small_tokenizer, out=out))
        with pytest.raises(DataError, match="is inside --input"):
            train_tokenizer(TokenizerTraining(inputs=documents.input, vocab_size=500), out)
        assert not out.exists()
