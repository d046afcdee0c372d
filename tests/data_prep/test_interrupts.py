"""Ctrl-C reaches a whole process group, at any moment and more than once; the command still ends in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from salamandra_data.directory_lock import LOCK
from salamandra_data.tokenization import TokenizeJob, tokenize


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files whose text takes some seconds to encode."""
    directory = tmp_path_factory.mktemp("interrupted")
    for number in range(4):
        with open(directory / f"{number}.jsonl", "w") as stream:
            for line in range(300):
                text = f"{number} {line} " + "語言模型" * 500
                stream.write(json.dumps({"text": text, "language": "zh"}, ensure_ascii=False) + "\n")
    return directory


def started(corpus: Path, tokenizer: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "megatron_salamandra.cli", "data", "tokenize", "--input", str(corpus)]
    command += ["--tokenizer", str(tokenizer), "--out", str(out), "--workers", "2"]
    command += ["--shard-tokens", "200000"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def members(session: int) -> list[int]:
    """Running processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("again_after", [None, 0.05, 0.3], ids=["once", "twice at once", "twice"])
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.8, 1.5])
def test_ctrl_c_ends_the_command_and_all_its_processes(
    corpus: Path, small_tokenizer: Path, tmp_path: Path, delay: float, again_after: float | None
) -> None:
    process = started(corpus, small_tokenizer, tmp_path / "out")
    while not (tmp_path / "out" / LOCK).exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    if again_after is not None:
        time.sleep(again_after)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)  # ends only when no process has the pipe any more
    if process.returncode != 0:  # else it was done before
        assert process.returncode == 130, errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10  # multiprocessing's resource tracker ends a moment later
    while (left := members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert all(name.replace(".bin", ".json") in names for name in names if name.endswith(".bin"))


@pytest.mark.slow
def test_the_next_start_finishes_what_was_interrupted(
    corpus: Path, small_tokenizer: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(corpus, small_tokenizer, out)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again to continue" in errors
    again = started(corpus, small_tokenizer, out)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    tokenize(TokenizeJob([corpus], small_tokenizer, tmp_path / "whole", shard_tokens=200_000))
    found, whole = (
        {path.name: path.read_bytes() for path in place.iterdir()} for place in (out, tmp_path / "whole")
    )
    assert found.keys() == whole.keys()
    assert {name for name in found if not name.endswith(".json") and found[name] != whole[name]} == set()
