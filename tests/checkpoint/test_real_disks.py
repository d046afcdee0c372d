"""Saves on a small file system that is filled, made read-only, and mended again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faulty_saves import train_with_commands
from training_runs import TrainingRuns

from megatron_salamandra.run_directory import complete_checkpoints, step_of, verify_checkpoint

# What a command does befalls the save of its own step.
SAVING = ["checkpoint.every_steps=1", "checkpoint.asynchronous=false", "checkpoint.keep_last=null"]


@pytest.fixture
def small_disk(runs: TrainingRuns) -> Iterator[Path]:
    """``checkpoints/`` of the run ``small-disk`` on a file system of its own."""
    place = runs.root / "small-disk" / "checkpoints"
    place.mkdir(parents=True)
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_training_outlives_a_full_and_a_read_only_file_system(runs: TrainingRuns, small_disk: Path) -> None:
    filler = small_disk / "filler"
    # Leaves less than a checkpoint needs.
    fill = f"size=$(du -sb {small_disk}/step-00000001 | cut -f1); free=$(df -B1 --output=avail {small_disk} | tail -1)"
    commands = {
        2: ["mount", "-o", "remount,ro", str(small_disk)],
        3: ["mount", "-o", "remount,rw", str(small_disk)],
        4: ["sh", "-c", f"{fill}; head -c $((free - size * 19 / 20)) /dev/zero > {filler}"],
        5: ["rm", str(filler)],
    }
    job = partial(train_with_commands, commands=commands)
    assert (
        runs.run_job(job, "small-disk", 2, *SAVING, "training.steps=6", "checkpoint.retry_seconds=0.3") == 0
    )
    failures = {
        event["step"]: event["error"] for event in runs.events("small-disk") if event["event"] == "failure"
    }
    assert failures.keys() == {2, 4}
    assert "Read-only file system" in failures[2] and str(small_disk) in failures[2]
    assert "No space left on device" in failures[4] or "GB are free" in failures[4]
    assert [step_of(path) for path in complete_checkpoints(small_disk)] == [1, 3, 5, 6]
    for path in complete_checkpoints(small_disk):
        verify_checkpoint(path)
    assert len(runs.metrics("small-disk")) == 6
