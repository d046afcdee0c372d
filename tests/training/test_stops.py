"""Requests to stop, closed terminals, kills and second starts, with real processes and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from local_runs import LONG, command, last_step, started, wait_until
from processes import is_running
from rank_jobs import SMALL_CONFIG

from megatron_salamandra.run_directory import (
    RunDirectory,
    latest_checkpoint,
    read_events,
    read_owner,
    step_of,
)


def has_saved_its_last_step(run: RunDirectory) -> bool:
    checkpoint = latest_checkpoint(run.checkpoints)
    return checkpoint is not None and step_of(checkpoint) == last_step(run)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_while_the_ranks_are_starting_ends_them_with_75(
    blend: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Rank 0 takes the directory before it imports torch, which takes seconds."""
    run = RunDirectory(tmp_path / "run")
    with started(command(blend, run.path)) as process:
        wait_until(run.owner.exists)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "before anything was begun" in errors
    assert not run.metrics.exists()
    assert not run.owner.exists()


def test_a_signal_finds_a_lone_rank_at_its_first_line(blend: Path, tmp_path: Path) -> None:
    """As under a cluster's launcher, which signals the process itself."""
    run = RunDirectory(tmp_path / "run")
    arguments = [
        *(sys.executable, "-m", "megatron_salamandra.train", str(SMALL_CONFIG)),
        *(f"data.blend={blend}", f"run_dir={run.path}"),
    ]
    with started(arguments) as process:
        wait_until(lambda: catches(process.pid, signal.SIGUSR1))
        assert not run.path.exists()  # not even the configuration was read
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == 75


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_finds_the_command_at_its_first_line(
    blend: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Before it has imported what minds signals later."""
    run = RunDirectory(tmp_path / "run")
    program = "from megatron_salamandra.start import command; command()"
    arguments = [sys.executable, "-c", program, "train", str(SMALL_CONFIG), f"data.blend={blend}"]
    with started([*arguments, f"run_dir={run.path}"]) as process:
        wait_until(lambda: catches(process.pid, signal.SIGUSR1))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert len(errors.split("\n")) <= 3 and "Traceback" not in errors
    assert not run.path.exists()


def catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [line.split()[1] for line in status if "SigCgt" in line]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_second_run_is_refused_and_a_closed_terminal_saves_the_first(blend: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with started(command(blend, run.path, *LONG)) as first:
        wait_until(run.metrics.exists)
        owner = read_owner(run)
        assert owner is not None
        config = run.config.read_text()
        second = subprocess.run(
            command(blend, run.path, *LONG, "optimizer.lr=1e-3"), capture_output=True, text=True, timeout=120
        )
        assert second.returncode == 2
        assert f"is being used by process {owner.pid} on {owner.host} since {owner.since}" in second.stderr
        assert len(second.stderr.splitlines()) == 2, second.stderr
        first.send_signal(signal.SIGHUP)
        assert first.wait(timeout=120) == 75
    assert run.config.read_text() == config
    assert has_saved_its_last_step(run)
    assert not is_running(owner.pid)
    assert [event.kind for event in read_events(run.events)].count("start") == 1


def under_torchrun(blend: Path, run: Path, *overrides: str) -> list[str]:
    given = [str(SMALL_CONFIG), f"data.blend={blend}", f"run_dir={run}", *overrides]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*torchrun, "-m", "megatron_salamandra.train", *given]


@pytest.mark.parametrize("launcher", [command, under_torchrun])
def test_ranks_do_not_outlive_a_launcher_that_was_killed(
    blend: Path, tmp_path: Path, launcher: Callable[..., list[str]]
) -> None:
    """They are asked to stop, save and leave, and so does what saves have started."""
    run = RunDirectory(tmp_path)
    with started(launcher(blend, run.path, *LONG, "checkpoint.every_steps=1")) as process:
        wait_until(lambda: latest_checkpoint(run.checkpoints))
        owner = read_owner(run)
        assert owner is not None
        family = [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdecimal() and str(run.path) in command_line(path)
        ]
        process.kill()
        wait_until(lambda: not any(is_running(pid) for pid in family))
    end = read_events(run.events)[-1]
    assert (end.kind, end.details["exit_code"]) == ("end", 75)
    assert has_saved_its_last_step(run)


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_a_rank_that_was_killed_takes_its_helpers_along(blend: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with started(command(blend, run.path, *LONG, "checkpoint.every_steps=1", ranks=1)) as process:
        wait_until(lambda: latest_checkpoint(run.checkpoints))
        owner = read_owner(run)
        assert owner is not None
        helpers = [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdecimal() and group_of(path) == owner.pid
        ]
        assert len(helpers) > 1
        os.kill(process.pid, signal.SIGSTOP)  # so that it is not the launcher that ends them
        os.kill(owner.pid, signal.SIGKILL)
        try:
            # The tracker of multiprocessing's resources ends by itself.
            wait_until(lambda: not any(is_running(pid) for pid in helpers))
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 128 + signal.SIGKILL


def group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return -1


def test_a_signal_to_all_processes_of_a_rank_does_not_spoil_its_saves(blend: Path, tmp_path: Path) -> None:
    """As SLURM and a terminal send it: the process through which writers report gets it, too."""
    run = RunDirectory(tmp_path)
    saving = ["checkpoint.every_steps=2", "checkpoint.asynchronous=true", "checkpoint.keep_last=2"]
    with started(command(blend, run.path, *LONG, *saving, ranks=1)) as process:
        wait_until(lambda: latest_checkpoint(run.checkpoints))
        owner = read_owner(run)
        assert owner is not None
        # Of the two the one that multiprocessing itself lets through when it starts a process.
        os.killpg(owner.pid, signal.SIGTERM)
        assert process.wait(timeout=120) == 75
    assert [event.details for event in read_events(run.events) if event.kind == "failure"] == []
    assert has_saved_its_last_step(run)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "SLURM_NTASKS = 2, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, but RANK"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE = two is not a whole number"),
    ],
)
def test_a_world_that_cannot_be_is_refused_in_one_message(
    blend: Path, tmp_path: Path, environment: dict[str, str], expected: str
) -> None:
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "megatron_salamandra.train", str(SMALL_CONFIG)),
            *(f"data.blend={blend}", f"run_dir={tmp_path / 'run'}"),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 2
    assert expected in finished.stderr
    assert len(finished.stderr.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_refused_once_by_all_ranks_together(
    blend: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    finished = subprocess.run(command(blend, tmp_path / "file"), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 2
    assert f"run_dir = {tmp_path / 'file'} cannot be written" in finished.stderr
    assert len(finished.stderr.splitlines()) == 2, finished.stderr


def test_lost_checkpoints_do_not_rewrite_the_history_of_a_run(blend: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    short = ["training.steps=6", "optimizer.warmup_steps=2", "training.stop_after_steps=3"]
    assert subprocess.run(command(blend, run.path, *short, ranks=1), timeout=240).returncode == 75
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    run.checkpoints.rename(tmp_path / "elsewhere")
    finished = subprocess.run(
        command(blend, run.path, *short, ranks=1), capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 1
    assert "has saved step 3" in finished.stderr
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before
    json.loads(before["metrics.jsonl"].splitlines()[-1])
