"""A run directory has one owner at a time, on one host or several, and a dead owner never blocks."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.run_directory import (
    OwnershipLost,
    RunDirectory,
    RunDirectoryError,
    make_logs,
    own,
    read_owner,
)
from megatron_salamandra.run_directory import owner as owner_module
from megatron_salamandra.run_directory.owner_record import OwnerRecord

OWNER = Path(__file__).parents[1] / "support" / "run_owner.py"
HOUR_AGO = 3600


@contextmanager
def other_owner(run: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that owns ``run`` until the block ends."""
    command = [sys.executable, str(OWNER), str(run), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks of the kernel."""

    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def left_on_another_host(run: Path, *, silent_for: float = 0.0, **changes: Any) -> OwnerRecord:
    """Write the record of an owner that another host would have to say whether it lives."""
    record = dataclasses.replace(
        OwnerRecord.of_this_process(), boot="another boot", host="node9", token="t", **changes
    )
    path = RunDirectory(run).owner
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record.to_json()))
    moment = path.stat().st_mtime - silent_for
    os.utime(path, (moment, moment))
    return record


def test_a_second_owner_is_refused_and_the_first_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with other_owner(tmp_path) as first:
        with pytest.raises(RunDirectoryError) as refusal, own(RunDirectory(tmp_path)):
            pass
        record = read_owner(RunDirectory(tmp_path))
        assert record is not None
        named = f"process {first.pid} on {socket.gethostname()} since {record.since}, job 4711"
        assert f"run_dir = {tmp_path} is being used by {named}" in str(refusal.value)
        assert refusal.value.exit_code == 2


def test_an_owner_leaves_nothing_behind(tmp_path: Path) -> None:
    with own(RunDirectory(tmp_path / "run")) as owner:
        owner.check()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "options", [[], ["no-locks"], ["helper"]], ids=["lock", "no lock", "helper lives on"]
)
def test_a_killed_owner_does_not_block(
    tmp_path: Path, options: list[str], request: pytest.FixtureRequest
) -> None:
    with other_owner(tmp_path, *options) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert RunDirectory(tmp_path).owner.exists()
        if "no-locks" in options:
            request.getfixturevalue("without_locks")
        with own(RunDirectory(tmp_path)) as owner:
            owner.check()


@pytest.mark.usefixtures("without_locks")
def test_where_there_are_no_locks_the_record_keeps_a_second_run_out(tmp_path: Path) -> None:
    with (
        other_owner(tmp_path, "no-locks") as first,
        pytest.raises(RunDirectoryError, match=f"process {first.pid}"),
        own(RunDirectory(tmp_path)),
    ):
        pass


def test_a_lock_file_that_somebody_removed_lets_nobody_in(tmp_path: Path) -> None:
    with other_owner(tmp_path) as first:
        RunDirectory(tmp_path).lock.unlink()
        with pytest.raises(RunDirectoryError, match=f"process {first.pid}"), own(RunDirectory(tmp_path)):
            pass


def test_an_owner_on_another_host_lives_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    left_on_another_host(tmp_path)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            os.utime(RunDirectory(tmp_path).owner)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunDirectoryError, match="on node9"), own(RunDirectory(tmp_path)):
            pass
    finally:
        ended.set()
        thread.join()


def test_an_owner_on_another_host_that_is_watched_and_silent_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_on_another_host(tmp_path)
    monkeypatch.setattr(owner_module, "SILENCE_SECONDS", 1.0)
    with own(RunDirectory(tmp_path)) as owner:
        owner.check()


def test_an_owner_on_another_host_that_was_silent_for_long_does_not_block(tmp_path: Path) -> None:
    left_on_another_host(tmp_path, silent_for=HOUR_AGO)
    with own(RunDirectory(tmp_path)) as owner:
        owner.check()


def test_the_round_of_a_job_that_slurm_ended_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_on_another_host(tmp_path, job="77", round=1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with own(RunDirectory(tmp_path)) as owner:
        owner.check()


def test_a_host_that_was_cut_off_does_not_keep_the_job_that_slurm_started_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the kernel's lock, which may be shared between hosts, and lives; only its token can keep it out."""
    monkeypatch.setattr(owner_module, "HELPERS_SECONDS", 0.3)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with own(RunDirectory(tmp_path)) as cut_off:
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with own(RunDirectory(tmp_path)) as owner:
            owner.check()
            with pytest.raises(OwnershipLost):
                cut_off.check()
            with pytest.raises(RunDirectoryError, match="is being used by"), own(RunDirectory(tmp_path)):
                pass


def test_an_owner_that_was_cut_off_finds_that_it_may_not_write(tmp_path: Path) -> None:
    with own(RunDirectory(tmp_path)) as owner:
        left_on_another_host(tmp_path)
        with pytest.raises(OwnershipLost, match="taken over by process .* on node9"):
            owner.check()
    # And it leaves the new owner's record alone.
    found = read_owner(RunDirectory(tmp_path))
    assert found is not None
    assert found.host == "node9"


def test_a_record_that_another_owner_has_taken_away_with_the_lock_is_a_loss(tmp_path: Path) -> None:
    with own(RunDirectory(tmp_path)) as owner:
        RunDirectory(tmp_path).owner.unlink()
        owner.check()  # only tidied away: the lock is still ours
        RunDirectory(tmp_path).owner.unlink()
        RunDirectory(tmp_path).lock.unlink()
        with pytest.raises(OwnershipLost):
            owner.check()


def test_the_heart_of_an_owner_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "HEARTBEAT_SECONDS", 0.01)
    path = RunDirectory(tmp_path).owner
    with own(RunDirectory(tmp_path)):
        os.utime(path, (0, 0))
        beaten = threading.Event()
        for _ in range(1000):
            if path.stat().st_mtime > 0:
                break
            beaten.wait(0.01)
        assert path.stat().st_mtime > 0


@pytest.mark.parametrize("place", ["file", "file/run", "link", "/proc/x"])
def test_a_directory_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    expected = pytest.raises(RunDirectoryError, match="cannot be written: .*\n  name a directory")
    with expected as refusal, own(RunDirectory(tmp_path / place)):
        pass
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("blocked", ["logs", "logs/rank-0000.log"])
def test_logs_that_cannot_be_written_are_refused_before_ranks_join(tmp_path: Path, blocked: str) -> None:
    if blocked == "logs":
        (tmp_path / blocked).touch()
    else:
        (tmp_path / blocked).mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match=f"cannot be written: .*{blocked}"):
        make_logs(RunDirectory(tmp_path))


@pytest.mark.parametrize("number", [errno.EROFS, errno.ESTALE, errno.EIO])
def test_a_directory_that_cannot_be_written_any_more_does_not_spoil_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with own(RunDirectory(tmp_path)):
        monkeypatch.setattr(Path, "unlink", unlink)


def test_a_directory_that_has_gone_does_not_spoil_the_end(tmp_path: Path) -> None:
    with own(RunDirectory(tmp_path / "run")) as owner:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        with pytest.raises(OwnershipLost, match="is gone"):
            owner.check()


def test_a_link_and_a_relative_path_lead_to_the_same_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    with own(RunDirectory(tmp_path / "link")):
        for place in (Path("run"), Path("link"), tmp_path / "run" / ".." / "run"):
            with pytest.raises(RunDirectoryError, match="is being used by"), own(RunDirectory(place)):
                pass
