"""The commands of ``salamandra data``, one after the other as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from megatron_salamandra.cli import main


def test_text_becomes_a_verified_blend(
    tmp_path: Path, corpus_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [str(path) for path in corpus_files]
    tokenizer, shards, plan = tmp_path / "tokenizer", tmp_path / "shards", tmp_path / "blend.yaml"
    assert (
        main(["data", "train-tokenizer", "--input", *inputs, "--vocab-size", "700", "--out", str(tokenizer)])
        == 0
    )
    assert "700 ids" in capsys.readouterr().out
    model = str(tokenizer / "tokenizer.model")
    options = ["--tokenizer", model, "--out", str(shards), "--workers", "1", "--validation-fraction", "0.1"]
    assert main(["data", "tokenize", "--input", *inputs, *options]) == 0
    captured = capsys.readouterr()
    assert "bytes/token" in captured.out and "tokenizing 100.0%" in captured.err
    factors = tmp_path / "factors.yaml"
    factors.write_text("languages:\n  en: 0.5\n  ca: 2\n  eu: 2\n  cy: 1\n  no: 1\n")
    blend = [
        "--shards",
        str(shards),
        "--factors",
        str(factors),
        "--out",
        str(plan),
        "--budget-tokens",
        "1000000",
    ]
    assert main(["data", "blend", *blend]) == 0
    captured = capsys.readouterr()
    assert "warning: no text for 1 languages of the factors file: cy" in captured.err
    assert "is walked" in captured.err
    contents = yaml.safe_load(plan.read_text())
    assert [source["language"] for source in contents["sources"]] == ["ca", "el", "en", "eu", "no", "uk"]
    assert main(["data", "verify", str(shards), str(plan)]) == 0
    assert main(["data", "inspect", str(shards)]) == 0
    assert "el-validation-00000" in capsys.readouterr().out
    assert main(["data", "inspect", str(shards), "--document", "0"]) == 0
    with open(shards / "en-train-00000.bin", "r+b") as stream:
        stream.write(b"\x07\x07")
    assert main(["data", "verify", str(shards)]) == 1
    assert "en-train-00000.bin: bytes 0 to" in capsys.readouterr().out


def test_failures_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["verify", str(tmp_path / "nowhere")],
        ["inspect", str(tmp_path / "nowhere")],
        ["blend", "--shards", str(tmp_path), "--factors", str(tmp_path / "f"), "--out", str(tmp_path / "b")],
        [
            "train-tokenizer",
            "--input",
            str(tmp_path / "x"),
            "--vocab-size",
            "500",
            "--out",
            str(tmp_path / "t"),
        ],
    ):
        assert main(["data", *arguments]) == 1
        message = capsys.readouterr().err
        assert str(tmp_path) in message and "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["tokenize", "--input", "x", "--tokenizer", "t", "--out"],
        ["tokenize", "--input", "x", "--tokenizer", "t", "--out", "here", "--scratch"],
        ["curate", "--input", "x", "--out"],
        ["train-tokenizer", "--input", "x", "--vocab-size", "500", "--out"],
        ["blend", "--shards", "s", "--factors", "f", "--out"],
        ["merge", "s", "--out"],
        ["split", "s", "--parts", "2", "--out"],
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_a_url_is_no_place_to_write(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["data", *command, "s3://bucket/shards"])
    assert caught.value.code == 2
    assert f"{command[-1]}: 's3://bucket/shards' is a URL, and output goes to disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", ["0", "-5", "many"])
def test_a_budget_below_one_token_is_bad_usage(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "blend", "--shards", "s", "--factors", "f", "--out", "o", f"--budget-tokens={budget}"])
    assert caught.value.code == 2
    assert "--budget-tokens" in capsys.readouterr().err


def test_data_preparation_never_imports_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, salamandra_data\n"
        "for module in pkgutil.walk_packages(salamandra_data.__path__, 'salamandra_data.'):\n"
        "    importlib.import_module(module.name)\n"
        "from megatron_salamandra.cli import build_parser; build_parser()\n"
        "assert 'torch' not in sys.modules and 'megatron.core' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
