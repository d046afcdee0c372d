"""Ctrl-C reaches a whole process group, at any moment and more than once; the command still ends in order."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tokenize_job import tokenize_job

from megatron_salamandra.foundation.directory_lock import LOCK
from megatron_salamandra.foundation.signals import (
    Interruption,
    interruption_deferred,
    interruption_unseen_by_children,
)
from salamandra_data.tokenization import tokenize_documents
from salamandra_data.tokenization.backends.gigatoken_backend import GigatokenBackend


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
    tokenize_documents(tokenize_job([corpus], small_tokenizer, tmp_path / "whole", shard_tokens=200_000))
    found, whole = (
        {path.name: path.read_bytes() for path in place.iterdir()} for place in (out, tmp_path / "whole")
    )
    assert found.keys() == whole.keys()
    assert {name for name in found if not name.endswith(".json") and found[name] != whole[name]} == set()


def test_ctrl_c_while_the_command_starts_ends_it_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "megatron_salamandra.cli",
            "data",
            "inspect",
            str(tmp_path),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:  # one for each module, when it has been imported
        if "annotated_types" in line:  # pydantic is next
            os.killpg(process.pid, signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert "interrupted" in errors and "Traceback" not in errors


def test_ctrl_c_behind_the_work_does_not_fail_what_is_done() -> None:
    code = "import atexit, os, signal, sys, threading\n"
    code += "from megatron_salamandra.cli import command\n"
    code += "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"  # while the interpreter ends
    code += "class Late:\n"
    code += "    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT): kill(me, number)\n"
    code += "sys.late = Late()\n"  # ends with the interpreter, behind its signal handlers
    code += "sys.argv = ['salamandra', '--version']\n"
    for words, expected in ((code + "command()\n", 0), (code, -signal.SIGINT)):
        ended = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)
        assert ended.returncode == expected, ended.stderr


def test_nothing_heavy_is_imported_before_the_command_minds_signals() -> None:
    code = "import sys, megatron_salamandra.cli; print([m for m in ('pydantic', 'numpy', 'torch') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_a_signal_takes_effect_behind_the_block_that_defers_it_and_kills_what_it_waits_for() -> None:
    sleeper = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    sleeper.start()
    passed = []
    with pytest.raises(KeyboardInterrupt), interruption_deferred(kill=[sleeper]):
        signal.raise_signal(signal.SIGINT)
        sleeper.join(60)
        passed.append(sleeper.exitcode)
    assert passed == [-signal.SIGKILL]
    with interruption_deferred():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_do_not_see_ctrl_c_before_they_can_ignore_it() -> None:
    context = multiprocessing.get_context("spawn")
    for started_by, code in ((interruption_unseen_by_children(), 0), (nullcontext(), 1)):
        child = context.Process(target=signal.raise_signal, args=(signal.SIGINT,))
        with started_by:
            child.start()
        child.join(60)
        assert child.exitcode == code


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption_unseen_by_children(), Interruption(signal.SIGINT, tidy=True) as interruption:
            signal.raise_signal(signal.SIGINT)
        assert not interruption.arrived
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_signal_lets_the_first_tidy_up_and_a_third_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    tidied = []
    try:
        with pytest.raises(KeyboardInterrupt), Interruption(signal.SIGINT, tidy=True):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                tidied.append(1)
                signal.raise_signal(signal.SIGINT)
                tidied.append(2)
        assert tidied == [1]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # nothing is left to interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def test_gigatoken_does_not_swallow_ctrl_c(
    small_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken")
    backend = GigatokenBackend(small_tokenizer, tmp_path)
    real = backend._encode

    def interrupted(text: bytes) -> Any:
        """Does as gigatoken does when what it calls raises: goes on without it."""
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            return []
        return real(text)

    monkeypatch.setattr(backend, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.encode([b"bon dia"])
