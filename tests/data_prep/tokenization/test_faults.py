"""When tokenization goes wrong it says where, leaves nothing half-written, and continues where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenize_job as module_of_jobs
from tokenize_job import tokenize_job

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import publishing_path
from salamandra_data.tokenization import plan as planning
from salamandra_data.tokenization import tokenize_documents
from salamandra_data.tokenization.run_file import Run
from salamandra_data.tokenization.sorted_runs import RunWriter

GOOD = b'{"text": "bona tarda", "language": "ca"}\n'
BAD_LINES = {
    2: b'{"text": "a"\n',
    4: b'{"txt": "a", "language": "ca"}\n',
    5: b'{"text": 7, "language": "ca"}\n',
    7: b'{"text": "\xff", "language": "ca"}\n',
    8: b'{"text": "\\udc00", "language": "ca"}\n',
}


def visible_and_hidden(directory: Path) -> list[str]:
    return (
        sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
        if directory.exists()
        else []
    )


@pytest.fixture
def bad_file(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"".join(BAD_LINES.get(number, GOOD) for number in range(1, 10)))
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_malformed_line_ends_the_run_and_nothing_is_written(
    tmp_path: Path, bad_file: Path, small_tokenizer: Path, workers: int
) -> None:
    good = tmp_path / "good.jsonl"
    good.write_bytes(GOOD)
    with pytest.raises(DataError, match=r"bad\.jsonl:2: not JSON.*\n.*--on-error skip"):
        tokenize_documents(tokenize_job([good, bad_file], small_tokenizer, tmp_path / "out"), workers)
    assert visible_and_hidden(tmp_path / "out") == []


def test_skipped_lines_are_counted_and_listed(tmp_path: Path, bad_file: Path, small_tokenizer: Path) -> None:
    result = tokenize_documents(
        tokenize_job([bad_file], small_tokenizer, tmp_path / "out", skip_malformed=True)
    )
    assert result.malformed_lines == len(BAD_LINES)
    assert result.skipped_report is not None
    listed = result.skipped_report.read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [f"{bad_file}:{number}" for number in BAD_LINES]
    assert "lone surrogate" in listed[-1]
    assert [(group.language, group.documents) for group in result.groups] == [("ca", 4)]


def test_what_a_run_leaves_is_no_input_of_the_next(
    tmp_path: Path, bad_file: Path, small_tokenizer: Path
) -> None:
    out = tmp_path / "shards"
    job = tokenize_job([bad_file], small_tokenizer, out, DocumentKeys(language="ca"), skip_malformed=True)
    first = tokenize_documents(job)
    before = visible_and_hidden(tmp_path)
    again = tokenize_documents(job)
    assert again.shards_already_done == len(again.groups[0].shards) == 1
    assert again.groups == first.groups and visible_and_hidden(tmp_path) == before
    with pytest.raises(DataError, match="no input file"):
        tokenize_documents(tokenize_job([out], small_tokenizer, tmp_path / "others"))


def test_an_input_of_malformed_lines_only_is_no_success(tmp_path: Path, small_tokenizer: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(DataError, match="no document with text"):
        tokenize_documents(
            tokenize_job([tmp_path / "bad.jsonl"], small_tokenizer, tmp_path / "out", skip_malformed=True)
        )
    assert visible_and_hidden(tmp_path / "out") == []


@pytest.mark.parametrize(
    "options",
    [
        ["--validation-fraction", "1.0"],
        ["--validation-fraction", "nan"],
        ["--guard-share", "inf"],
        ["--guard-share", "1e400"],
        ["--workers", "0"],
        ["--shard-tokens", "0"],
        ["--shard-tokens", "1e9"],
        ["--seed", str(2**64)],
        ["--seed", str(-(2**63) - 1)],
        ["--encoder", "fastest"],
        ["--language", "a/b"],
    ],
)
def test_bad_options_are_refused_before_anything_is_read(
    tmp_path: Path, small_tokenizer: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    command = ["data", "tokenize", "--input", str(tmp_path / "nowhere"), "--tokenizer", str(small_tokenizer)]
    try:
        code = main([*command, "--out", str(tmp_path / "out"), *options])
    except SystemExit as ended:  # of argparse
        code = int(ended.code or 0)
    message = capsys.readouterr().err
    assert code in (1, 2) and options[0] in message and "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, corpus_files: list[Path]) -> None:
    for name, content in (("garbage.model", b"garbage"), ("empty.model", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            tokenize_documents(tokenize_job(corpus_files, tmp_path / name, tmp_path / "out"))
    with pytest.raises(DataError, match="nowhere.model"):
        tokenize_documents(tokenize_job(corpus_files, tmp_path / "nowhere.model", tmp_path / "out"))


def test_a_directory_with_a_tokenizer_is_as_good_as_its_model(tmp_path: Path, small_tokenizer: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    tokenize_documents(tokenize_job([tmp_path / "good.jsonl"], small_tokenizer.parent, tmp_path / "out"))
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == small_tokenizer.read_bytes()
    with pytest.raises(DataError, match="neither a SentencePiece model file nor a directory"):
        tokenize_documents(tokenize_job([tmp_path / "good.jsonl"], tmp_path, tmp_path / "out"))


def test_working_directories_of_a_killed_run_are_removed(tmp_path: Path, small_tokenizer: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    abandoned = f".tokenize-{host}-{ended.pid}-abc"
    kept = [f".tokenize-{host}-{os.getpid()}-abc", f".tokenize-elsewhere.{host}-{ended.pid}-abc"]
    for name in (abandoned, *kept):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "run-0").write_bytes(b"text")
    tokenize_documents(tokenize_job([tmp_path / "good.jsonl"], small_tokenizer, tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").glob(".*")) == sorted(kept)


def test_shards_of_another_job_or_tokenizer_are_not_mixed_with(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    out = tmp_path / "out"
    tokenize_documents(tokenize_job(corpus_files, small_tokenizer, out))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    for other in (
        tokenize_job(corpus_files, small_tokenizer, out, seed=1),
        tokenize_job(corpus_files[:2], small_tokenizer, out),
        tokenize_job(corpus_files, small_tokenizer, out, validation_fraction=0.5),
    ):
        with pytest.raises(DataError, match="from other input or with other options"):
            tokenize_documents(other)
    (out / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(DataError, match="of another tokenizer"):
        tokenize_documents(tokenize_job(corpus_files, small_tokenizer, out))
    (out / "tokenizer.model").write_bytes(small_tokenizer.read_bytes())
    assert {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".model"} == {
        path: stamp for path, stamp in before.items() if path.suffix != ".model"
    }


def test_another_language_may_join_the_same_directory(tmp_path: Path, small_tokenizer: Path) -> None:
    for language in ("ca", "oc"):
        (tmp_path / f"{language}.txt").write_text("bon jorn " + language)
        tokenize_documents(
            tokenize_job(
                [tmp_path / f"{language}.txt"],
                small_tokenizer,
                tmp_path / "out",
                DocumentKeys(language=language),
            )
        )
    assert {"ca-train-00000.bin", "oc-train-00000.bin"} <= set(os.listdir(tmp_path / "out"))


def test_a_second_start_makes_only_what_is_missing(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path
) -> None:
    task = tokenize_job(corpus_files, small_tokenizer, tmp_path, shard_tokens=30_000)
    tokenize_documents(task)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for ending in (".bin", ".idx", ".json"):
        (tmp_path / f"el-train-00001{ending}").unlink()
    manifest = tmp_path / "uk-train-00000.json"
    manifest.rename(publishing_path(manifest.with_suffix("")))  # stopped between the renames of one shard
    result = tokenize_documents(task)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    redone = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != stamps[path.name]}
    assert {name.split(".")[0] for name in redone} == {"el-train-00001", "uk-train-00000"}
    assert result.shards_already_done == sum(name.endswith(".json") for name in first) - 2


KILLED = """
import os, sys
from pathlib import Path
from tokenize_job import tokenize_job
from salamandra_data.tokenization import tokenize_documents
replace, calls = os.replace, []
def killed(source, target):
    calls.append(target)
    if len([path for path in calls if "ca-train" in str(path)]) == int(sys.argv[4]):
        os._exit(9)
    replace(source, target)
os.replace = killed
tokenize_documents(tokenize_job([Path(sys.argv[1])], Path(sys.argv[2]), Path(sys.argv[3]), encoder="sentencepiece"))
"""


@pytest.mark.parametrize("name", [2, 3, 4])
def test_a_run_killed_between_the_names_of_a_shard_is_continued(
    tmp_path: Path, small_tokenizer: Path, name: int
) -> None:
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    arguments = [str(tmp_path / "good.jsonl"), str(small_tokenizer), str(tmp_path / "out")]
    support = str(Path(module_of_jobs.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": f"{support}:{os.environ.get('PYTHONPATH', '')}"}
    code = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, str(name)], check=False, timeout=60, env=environment
    )
    assert code.returncode == 9 and not (tmp_path / "out" / "ca-train-00000.json").exists()
    tokenize_documents(
        tokenize_job([tmp_path / "good.jsonl"], small_tokenizer, tmp_path / "out", encoder="sentencepiece")
    )
    assert visible_and_hidden(tmp_path / "out") == [
        *(f"ca-train-00000.{ending}" for ending in ("bin", "idx", "json")),
        "tokenizer.model",
    ]


@pytest.mark.parametrize("ending", [".bin", ".idx"])
def test_shards_of_another_tool_are_not_overwritten(
    tmp_path: Path, small_tokenizer: Path, ending: str
) -> None:
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    foreign = tmp_path / "out" / f"ca-train-00000{ending}"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    with pytest.raises(
        DataError, match=rf"ca-train-00000\{ending}: is here without a manifest.*\n.*move it away"
    ):
        tokenize_documents(tokenize_job([tmp_path / "good.jsonl"], small_tokenizer, tmp_path / "out"))
    assert visible_and_hidden(tmp_path / "out") == [foreign.name]
    assert foreign.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("ending", "change"),
    [(".bin", lambda raw: raw[:-2]), (".bin", lambda raw: raw + b"\0\0"), (".idx", lambda raw: raw[:-1])],
)
def test_a_shard_that_was_damaged_since_is_made_again(
    tmp_path: Path,
    corpus_files: list[Path],
    small_tokenizer: Path,
    ending: str,
    change: Callable[[bytes], bytes],
) -> None:
    task = tokenize_job(corpus_files, small_tokenizer, tmp_path)
    tokenize_documents(task)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    damaged = tmp_path / f"el-train-00000{ending}"
    damaged.write_bytes(change(damaged.read_bytes()))
    result = tokenize_documents(task)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert result.shards_already_done == sum(name.endswith(".json") for name in first) - 1


def test_shards_without_all_documents_that_were_read_are_no_success(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plan = planning.Plan

    def without_the_last_run(*, runs: list[Run], **values: object) -> planning.Plan:
        return Plan(runs=runs[:-1], **values)  # type: ignore[arg-type]

    monkeypatch.setattr(RunWriter.__init__, "__defaults__", (60_000,))
    monkeypatch.setattr(planning, "Plan", without_the_last_run)
    task = tokenize_job(corpus_files, small_tokenizer, tmp_path)
    message = (
        r"[a-z]{2}-train: 40 documents of .* were read, but the shards hold \d\d of .*\n.*remove .*-train-\*"
    )
    with pytest.raises(DataError, match=message):
        tokenize_documents(task)
    monkeypatch.undo()
    with pytest.raises(DataError, match=message):  # being there does not make them right
        tokenize_documents(task)
    for path in tmp_path.glob("*-train-*"):
        path.unlink()
    tokenize_documents(task)


@pytest.fixture(scope="module")
def slow_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that takes some seconds to encode: 6 MB that no piece covers."""
    path = tmp_path_factory.mktemp("slow") / "slow.jsonl"
    with open(path, "w") as stream:
        for number in range(1000):
            stream.write(
                json.dumps({"text": f"{number} " + "語言模型" * 500, "language": "zh"}, ensure_ascii=False)
                + "\n"
            )
    return path


def test_a_killed_worker_is_an_error_and_not_a_hang(
    tmp_path: Path, slow_corpus: Path, small_tokenizer: Path
) -> None:
    before = {process.pid for process in multiprocessing.active_children()}
    finished = threading.Event()

    def kill_one() -> None:
        while not finished.is_set():
            workers = [process for process in multiprocessing.active_children() if process.pid not in before]
            if workers and workers[0].pid is not None:
                os.kill(workers[0].pid, signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with pytest.raises(DataError, match=r"worker process was killed.*\n.*run the same command again"):
            tokenize_documents(
                tokenize_job([slow_corpus], small_tokenizer, tmp_path, shard_tokens=500_000), 2
            )
    finally:
        finished.set()
        killer.join()
    left = visible_and_hidden(tmp_path)
    assert not [name for name in left if name.endswith((".bin", ".idx"))]
    # What was read is kept for the next start, and nothing else.
    assert len({name.split("/")[0] for name in left if name.startswith(".")}) == 1


def run_command(arguments: list[str], file_size_limit: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if file_size_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))

    return subprocess.Popen(
        [sys.executable, "-m", "megatron_salamandra.cli", "data", "tokenize", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


@pytest.mark.parametrize(("limit", "failing"), [(1_000_000, "run-"), (8_000_000, "zh-train-00000.bin")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_write_leaves_nothing(
    tmp_path: Path, slow_corpus: Path, small_tokenizer: Path, limit: int, failing: str, workers: int
) -> None:
    process = run_command(
        [
            *("--input", str(slow_corpus), "--tokenizer", str(small_tokenizer)),
            *("--out", str(tmp_path / "out"), "--workers", str(workers)),
        ],
        file_size_limit=limit,
    )
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert failing in errors and "cannot be written: File too large" in errors and "Traceback" not in errors
    assert ("another disk with --scratch" in errors) == (failing == "run-")
    assert output == ""
    assert visible_and_hidden(tmp_path / "out") in ([], ["tokenizer.model"])


def test_an_interrupted_run_leaves_what_it_read_and_the_next_one_finishes_it(
    tmp_path: Path, slow_corpus: Path, small_tokenizer: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["--input", str(slow_corpus), "--tokenizer", str(small_tokenizer), "--out", str(out)]
    arguments += ["--workers", "2", "--shard-tokens", "500000"]
    process = run_command(arguments)
    deadline = time.monotonic() + 100
    while not list(out.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again to continue" in errors
    assert len({name.split("/")[0] for name in visible_and_hidden(out) if name.startswith(".")}) == 1
    again = run_command(arguments)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "shards kept from an earlier run" in output
    complete = tmp_path / "complete"
    tokenize_documents(tokenize_job([slow_corpus], small_tokenizer, complete, shard_tokens=500_000))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in complete.iterdir()
    }
