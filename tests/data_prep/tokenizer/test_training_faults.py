"""Text that SentencePiece does not learn from is not counted as learnt, and impossible numbers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_salamandra.cli import main
from salamandra_data.tokenizer import TokenizerTraining, recipe, train_tokenizer


def write_lines(path: Path, texts: list[tuple[str, str]]) -> Path:
    path.write_text(
        "".join(json.dumps({"text": text, "language": language}) + "\n" for language, text in texts)
    )
    return path


def test_lines_that_sentencepiece_refuses_are_not_counted_as_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [("oc", f"lo {n} dintre \u2585 xyzzyk\n\nbonjorn {n}") for n in range(300)]
    texts += [("ca", f"bona tarda a tothom {n}") for n in range(300)]
    texts += [("xx", f"xyzzyk {n} \u2585") for n in range(40)]
    source = write_lines(tmp_path / "in.jsonl", texts)
    command = ["data", "train-tokenizer", "--input", str(source), "--vocab-size", "430"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["refused_lines"] == {"oc": 300, "xx": 40}
    assert "does not learn from: 300 in oc" in told and "does not learn from: 40 in xx" in told
    assert record["languages"]["oc"]["available_bytes"] == sum(len(f"bonjorn {n}") for n in range(300))
    assert record["languages"]["oc"]["used_bytes"] > 0 and "xx" not in record["languages"]
    assert "xyzz" not in (tmp_path / "out" / "tokenizer.vocab").read_text()


def test_lines_of_too_many_bytes_are_not_counted_as_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "MAX_SENTENCE_BYTES", 40)  # which the trainer is told as well
    texts = [("ca", f"bona tarda a tothom {n}") for n in range(300)] + [("ca", "x" * 41), ("ca", "y" * 40)]
    source = write_lines(tmp_path / "in.jsonl", texts)
    trained = train_tokenizer(TokenizerTraining([source], vocab_size=430), tmp_path / "out")
    assert trained.refused_lines == {"ca": 1}
    assert trained.used_bytes["ca"] == sum(len(text) for _, text in texts) - 41
    pieces = (tmp_path / "out" / "tokenizer.vocab").read_text()
    assert "y" in pieces.split("\n<0xFF>")[1] and "x" not in pieces.split("\n<0xFF>")[1]


def test_names_of_one_language_are_one_language(tmp_path: Path) -> None:
    texts = [(("ca", "cat_Latn")[n % 2], f"bona tarda a tothom {n}") for n in range(200)]
    job = TokenizerTraining(
        [write_lines(tmp_path / "in.jsonl", texts)], vocab_size=420, language_sizes={"cat_Latn": 7}
    )
    trained = train_tokenizer(job, tmp_path / "out")
    assert list(trained.samples) == ["ca"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "99999999999999999999"], "seed"),
        (["--seed", str(-(2**63) - 1)], "seed"),
        (["--max-repeats", "nan"], "repeats"),
        (["--max-repeats", "inf"], "repeats"),
        (["--max-repeats", "1e400"], "repeats"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha=-inf"], "alpha"),
        (["--bytes-budget", str(10**400)], "budget"),
        (["--vocab-size", str(2**31)], "vocab"),
    ],
)
def test_numbers_that_cannot_be_are_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [("ca", "bona tarda")])
    command = ["data", "train-tokenizer", "--input", str(source), "--vocab-size", "500", "--out"]
    try:
        code = main([*command, str(tmp_path / "out"), *options])
    except SystemExit as ended:  # of argparse
        code = int(ended.code or 0)
    message = capsys.readouterr().err
    assert code in (1, 2) and named in message and "Traceback" not in message
    assert not (tmp_path / "out").exists()
