"""The real trainer on a real SLURM, in containers, on nodes that are checked, and hit at a bad moment."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from slurm_lab import Lab
from training_run import PYTHONPATH, Losses, TrainingRun

from megatron_salamandra.cluster import RoundBook

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Note = Callable[[str, TrainingRun, float], None]
STAND_IN = Path(__file__).parent / "container_stand_in.sh"
SAVE_EVERY_STEP = ("checkpoint.every_steps=1", "checkpoint.keep_last=2", "checkpoint.asynchronous=true")
# What has nothing to do with how SLURM tracks processes is tried with one way to do it.
on_cgroup = pytest.mark.parametrize("lab", ["cgroup"], indirect=True)
on_pgid = pytest.mark.parametrize("lab", ["pgid"], indirect=True)


def test_every_process_of_the_job_gets_the_signal_twice_while_saves_run(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", *SAVE_EVERY_STEP)
    run.wait_for_step(9)
    for _ in range(2):
        lab.on("ctl", "scancel", "--signal=USR1", "--full", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed


def test_the_signal_while_ranks_start(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses) -> None:
    """Whether they have come far enough for a first step or not."""
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_round(1)
    lab.on("ctl", "scancel", "--signal=USR1", "--full", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed


@on_cgroup
def test_a_host_dies_while_a_save_runs(
    whole_lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    run = TrainingRun(whole_lab, blend, tmp_path / "run", *SAVE_EVERY_STEP)
    run.wait_for_step(9)
    whole_lab.call("off", "node2")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["node", "done"]
    assert run.losses() == undisturbed


@on_pgid
def test_rank_0_is_frozen(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses) -> None:
    """It alone writes the heartbeat and the metrics."""
    run = TrainingRun(lab, blend, tmp_path / "run", "hangs.step_seconds=30")
    run.wait_for_step(13)
    lab.on("node1", "kill", "-STOP", str(run.rank_of("node1")))
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["hang", "done"]
    assert run.losses() == undisturbed
    failure = RoundBook(run.directory.path).read()[0].outcome.failure
    assert failure is not None and (failure.rank, failure.host) == (0, "node1"), run.text()


def container_site(path: Path, runtime: str) -> Mapping[str, str]:
    """Environment of a site whose container runtime is the stand-in, with an image that holds this project."""
    programs, image = path / "programs", path / "image"
    for directory in (programs, image / "bin"):
        directory.mkdir(parents=True)
    for name in ("apptainer", "srun"):
        shutil.copy(STAND_IN, programs / name)
        (programs / name).chmod(0o755)
    (image / "bin/python3").write_text(f'#!/bin/sh\nPYTHONPATH={PYTHONPATH} exec {sys.executable} "$@"\n')
    (image / "bin/python3").chmod(0o755)
    profile = path / "site.yaml"
    profile.write_text(
        "name: lab\ndescription: d\nnode: {gpus: 0, cpus: 16}\ntasks_per_node: 1\ncpus_per_task: 1\n"
        f"sbatch: {{partition: main}}\ncontainer: {{runtime: {runtime}}}\n"
    )
    return {
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SALAMANDRA_CONTAINER": str(image),
        "SALAMANDRA_PROFILE": str(profile),
    }


@on_cgroup
def test_a_run_in_containers_stops_for_the_time_limit_though_the_runtime_passes_no_signal_on(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note
) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", environment=container_site(tmp_path, "apptainer"))
    run.wait_for_step(13)
    fault = time.time()
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    note("signal before the time limit, in a container", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed


@on_pgid
def test_a_container_whose_runtime_is_killed_is_started_again(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", environment=container_site(tmp_path, "pyxis"))
    run.wait_for_step(13)
    lab.call("kill", "node2", "programs/apptainer exec .* megatron_salamandra.slurm_rank")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.losses() == undisturbed
    assert lab.field(run.job, "Restarts") == "0"


@on_cgroup
def test_the_node_check_finds_a_sick_node_before_ranks_start(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    """The real check, as every user has it."""
    lab.on("node2", "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm")
    try:
        run = TrainingRun(
            lab,
            blend,
            tmp_path / "run",
            sbatch=("--nodes=3",),
            environment={"SALAMANDRA_NODE_CHECK": "on", "SALAMANDRA_SPARES": "1"},
        )
        assert run.end() == "COMPLETED", run.text()
        (only,) = RoundBook(run.directory.path).read()
        assert only.hosts == ("node1", "node3"), run.text()
        assert "left out: node2 failed: memory: /dev/shm has 64 MiB free, less than 256" in run.text()
        assert run.losses() == undisturbed
    finally:
        lab.on("node2", "umount", "/dev/shm")
