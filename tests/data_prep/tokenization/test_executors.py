"""Tokenizing as stages gives the shards of one machine, whatever the executor and the number of tasks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from slurm_stand_in import install_slurm_stand_in
from tokenize_job import tokenize_job

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.execution import LocalSettings, Tasks
from salamandra_data.tokenization import TokenizeJob, tokenize_documents, tokenize_with


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def job(files: list[Path], tokenizer: Path, out: Path) -> TokenizeJob:
    return tokenize_job(files, tokenizer, out, shard_tokens=20_000, validation_fraction=0.1, seed=7)


@pytest.fixture(autouse=True)
def each_file_is_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files would be read as one task."""
    monkeypatch.setattr("salamandra_data.tokenization.first_pass._TOGETHER_BYTES", 1)


@pytest.fixture
def single(tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path) -> dict[str, bytes]:
    tokenize_documents(job(corpus_files, small_tokenizer, tmp_path / "single"))
    return contents(tmp_path / "single")


@pytest.mark.parametrize("tasks", [1, 5])
def test_stages_give_the_shards_of_one_machine(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, single: dict[str, bytes], tasks: int
) -> None:
    pytest.importorskip("datatrove")
    out = tmp_path / "out"
    outcome, result = tokenize_with(job(corpus_files, small_tokenizer, out), Tasks(LocalSettings(), tasks))
    assert outcome.done and result is not None
    assert contents(out) == single
    assert sum(group.documents for group in result.groups) == 240
    assert result.documents_checked > 0 or result.encoder.name == "sentencepiece"


def test_what_is_done_is_not_done_again_and_what_is_lost_is_made_again(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, single: dict[str, bytes]
) -> None:
    pytest.importorskip("datatrove")
    out, plan = tmp_path / "out", job(corpus_files, small_tokenizer, tmp_path / "out")
    tokenize_with(plan, Tasks(LocalSettings(), 3))
    untouched = (out / "ca-train-00000.bin").stat().st_mtime_ns
    tokenize_with(plan, Tasks(LocalSettings(), 3))
    for path in out.glob("el-train-00000.*"):
        path.unlink()
    with (out / "uk-train-00000.bin").open("r+b") as stream:
        stream.truncate(100)
    _, result = tokenize_with(plan, Tasks(LocalSettings(), 3))
    assert contents(out) == single and result is not None
    assert result.shards_already_done == len(list(out.glob("*.bin"))) - 2
    assert (out / "ca-train-00000.bin").stat().st_mtime_ns == untouched


def test_changed_input_is_another_job(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    pytest.importorskip("datatrove")
    source = tmp_path / "in.jsonl"
    source.write_bytes(corpus_files[0].read_bytes())
    plan = job([source], small_tokenizer, tmp_path / "out")
    tokenize_with(plan, Tasks(LocalSettings(), 2))
    with source.open("a") as stream:
        stream.write(json.dumps({"text": "un document més", "language": "ca"}) + "\n")
    with pytest.raises(DataError, match="holds shards of 'ca' made from other input"):
        tokenize_with(plan, Tasks(LocalSettings(), 2))


def tokenize_command(files: list[Path], tokenizer: Path, out: Path, *options: str) -> list[str]:
    command = ["data", "tokenize", "--input", *map(str, files), "--tokenizer", str(tokenizer)]
    command += ["--out", str(out), "--shard-tokens=20000", "--validation-fraction=0.1", "--seed=7"]
    return [*command, *options]


def test_slurm_arrays_make_the_same_shards(
    tmp_path: Path,
    corpus_files: list[Path],
    small_tokenizer: Path,
    single: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("datatrove")
    environment, jobs = install_slurm_stand_in(tmp_path / "slurm")
    monkeypatch.setenv("PATH", environment["PATH"])
    out = tmp_path / "out"
    options = ["--executor=slurm", "--slurm-partition=cpu", "--tasks=2"]
    command = tokenize_command(corpus_files, small_tokenizer, out, *options)
    assert main(command) == 0
    assert "submitted write: SLURM job" in capsys.readouterr().out
    assert contents(out) == single
    submitted = sorted(os.listdir(jobs))
    assert len(submitted) == 4  # one array for each stage: read, plan, write, finish
    assert main(command) == 0  # the jobs are done, so this shows the result
    assert "UTF-8 bytes" in capsys.readouterr().out and sorted(os.listdir(jobs)) == submitted


@pytest.mark.slow
def test_ray_makes_the_same_shards(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, single: dict[str, bytes]
) -> None:
    pytest.importorskip("ray")
    options = ["--executor=ray", "--workers=2", "--memory-per-cpu=1", "--tasks=2"]
    assert main(tokenize_command(corpus_files, small_tokenizer, tmp_path / "out", *options)) == 0
    assert contents(tmp_path / "out") == single


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor=slurm"], "--slurm-partition"),
        (["--tasks=3"], "--tasks means nothing to --executor local"),
        (["--executor=ray", "--slurm-qos=debug"], "--slurm-qos means nothing to --executor ray"),
    ],
)
def test_options_of_another_executor_are_refused(
    tmp_path: Path,
    small_tokenizer: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    base = [
        "data",
        "tokenize",
        "--input",
        "in.jsonl",
        "--tokenizer",
        str(small_tokenizer),
        "--out",
        str(tmp_path),
    ]
    assert main([*base, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_failed_task_is_told_and_the_rest_goes_on_later(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    pytest.importorskip("datatrove")
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "bo", "language": "ca"}\n{"text": broken\n')
    with pytest.raises(DataError, match=r"in\.jsonl:2: .*\n(.*\n)*.*\(read, task 0"):
        tokenize_with(job([source], small_tokenizer, tmp_path / "out"), Tasks(LocalSettings(), 2))
    assert not list((tmp_path / "out").glob("*.bin"))
