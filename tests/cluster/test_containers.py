"""How ranks get into containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_salamandra.cluster.container import ContainerError, in_container
from megatron_salamandra.cluster.profile import Container

RANK = ("python3", "-m", "megatron_salamandra.slurm_rank", "run.yaml")
PROFILE = {"NCCL_IB_HCA": "mlx5", "SITE_FABRIC": "cxi"}


def made(runtime: str | None, image: str | None = "image.sif") -> tuple[tuple[str, ...], tuple[str, ...]]:
    container = Container(runtime=runtime, mounts=("/scratch:/scratch",)) if runtime else None  # type: ignore[arg-type]
    command = in_container(
        RANK,
        container,
        image,
        directories=[Path("/runs/a b"), Path("/data"), Path("/data")],
        working_directory=Path("/here"),
        environment=PROFILE,
    )
    return command.srun_options, command.command


def test_without_an_image_nothing_changes() -> None:
    assert made(None, None) == ((), RANK)
    assert made("pyxis", None) == ((), RANK)


def test_an_image_needs_a_runtime() -> None:
    with pytest.raises(ContainerError, match=r"image\.sif: the cluster's profile names no container runtime"):
        made(None)


@pytest.mark.parametrize("runtime", ["singularity", "apptainer"])
def test_apptainer_keeps_the_environment_and_binds_each_directory_once(runtime: str) -> None:
    options, command = made(runtime)
    assert options == ()
    assert command[:3] == (runtime, "exec", "--nv")
    assert "/scratch:/scratch,/runs/a b:/runs/a b,/data:/data" in command
    assert command[-len(RANK) :] == RANK


def test_enroot_is_handed_what_the_task_needs_with_the_tasks_own_values(tmp_path: Path) -> None:
    program = tmp_path / "enroot"
    program.write_text('#!/bin/bash\necho "$$"\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    _, command = made("enroot")
    task = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_PROCID": "3",
        "SITE_FABRIC": "cxi",
        "NCCL_DEBUG": "two words",
        "HOME": "/home/me",
        "PYTHONPATH": "/elsewhere",
    }
    process = subprocess.Popen(command, env=task, stdout=subprocess.PIPE, text=True)
    pid, start, *said = process.communicate(timeout=30)[0].splitlines()
    assert (int(pid), start) == (process.pid, "start"), "enroot takes the place of what SLURM started"
    handed = [said[i + 1] for i, part in enumerate(said) if part == "--env"]
    # Not NCCL_IB_HCA, which this task has not got: it would be set to nothing.
    assert sorted(handed) == ["NCCL_DEBUG", "PYTHONNOUSERSITE=1", "SITE_FABRIC", "SLURM_PROCID"]
    mounted = [said[i + 1] for i, part in enumerate(said) if part == "--mount"]
    assert mounted == ["/scratch:/scratch", "/runs/a b:/runs/a b", "/data:/data"]
    assert tuple(said[-len(RANK) - 1 :]) == ("/here", *RANK)


def test_pyxis_takes_options_of_srun_and_the_jobs_values_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_PROVIDER", "cxi")
    options, command = made("pyxis")
    assert command == RANK
    assert {"--no-container-mount-home", "--container-writable", "--container-workdir=/here"} < set(options)
    (names,) = [option for option in options if option.startswith("--container-env=")]
    assert {*PROFILE, "FI_PROVIDER"} <= set(names.removeprefix("--container-env=").split(","))


def test_alps_takes_an_environment_file_and_the_callers_directory(tmp_path: Path) -> None:
    options, command = made("edf", "run.toml")
    assert options == ("--environment=run.toml",)
    assert command[-len(RANK) - 1 :] == ("/here", *RANK)


@pytest.mark.parametrize("runtime", ["enroot", "edf"])
def test_a_rank_starts_in_the_callers_directory(runtime: str, tmp_path: Path) -> None:
    command = in_container(
        [sys.executable, "-c", "import os; print(os.getcwd(), os.getpid())"],
        Container(runtime=runtime),  # type: ignore[arg-type]
        "image",
        directories=[],
        working_directory=tmp_path,
        environment={},
    ).command
    moved = command[command.index('cd "$1" && shift && exec "$@"') - 2 :]
    process = subprocess.Popen(moved, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=30)[0].split() == [str(tmp_path), str(process.pid)]


@pytest.mark.parametrize("runtime", ["singularity", "apptainer", "pyxis", "edf"])
def test_ranks_import_nothing_of_the_submitters_python(runtime: str) -> None:
    container = Container(runtime=runtime)  # type: ignore[arg-type]
    rank = in_container(
        RANK, container, "image", directories=[], working_directory=Path("/here"), environment={}
    )
    assert rank.environment == {"PYTHONPATH": "", "PYTHONHOME": "", "PYTHONNOUSERSITE": "1"}
