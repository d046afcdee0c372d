"""Two commands never write one directory at a time, and a killed one leaves nothing in the way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lock_holder
import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.foundation.directory_lock import LOCK, sole_use
from megatron_salamandra.foundation.errors import UserError


@contextmanager
def held(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The lock of ``directory``, held by another process while the block runs."""
    command = [sys.executable, lock_holder.__file__, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_the_holder_is_named_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    with held(tmp_path / "out") as holder:
        words = rf"out: is being written by process {holder.pid} on {socket.gethostname()} since 20"
        with pytest.raises(UserError, match=words), sole_use(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / LOCK).exists()  # as a killed process leaves it
    with sole_use(tmp_path / "out"):
        assert f"process {os.getpid()} on" in (tmp_path / "out" / LOCK).read_text()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_its_last_holder_removed_meanwhile_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def after_its_removal(lock: int, operation: int) -> None:
        if not removed:
            removed.append(lock)
            (tmp_path / LOCK).unlink()
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", after_its_removal)
    with sole_use(tmp_path), pytest.raises(UserError, match="is being written"), sole_use(tmp_path):
        pass


def test_a_file_system_without_locks_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(lock: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="has no locks"), sole_use(tmp_path):
        pass


@pytest.mark.parametrize("executor", ["local", "slurm"])
@pytest.mark.parametrize("command", ["curate", "tokenize"])
def test_a_second_command_on_the_same_out_is_refused_before_it_writes(
    tmp_path: Path,
    small_tokenizer: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    executor: str,
) -> None:
    pytest.importorskip("datatrove")
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "x = 1", "language": "code"}) + "\n")
    arguments = ["data", command, "--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    arguments += ["--tokenizer", str(small_tokenizer)] if command == "tokenize" else []
    arguments += ["--executor=slurm", "--slurm-partition=cpu"] if executor == "slurm" else []
    with held(tmp_path / "out") as holder:
        assert main(arguments) == 1
        assert f"is being written by process {holder.pid} on" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
