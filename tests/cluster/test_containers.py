"""How ranks get into containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.cluster.container import ContainerError, in_container
from megatron_salamandra.cluster.profile import Container

RANK = ("python3", "-m", "megatron_salamandra.slurm_rank", "run.yaml")
ENVIRONMENT = {"NCCL_IB_HCA": "mlx5", "HOME": "/home/me", "SLURM_PROCID": "3"}


def made(runtime: str | None, image: str | None = "image.sif") -> tuple[tuple[str, ...], tuple[str, ...]]:
    container = Container(runtime=runtime, mounts=("/scratch:/scratch",)) if runtime else None  # type: ignore[arg-type]
    command = in_container(
        RANK,
        container,
        image,
        directories=[Path("/runs/a b"), Path("/data"), Path("/data")],
        working_directory=Path("/here"),
        environment=ENVIRONMENT,
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


def test_enroot_is_handed_the_variables_that_ranks_need_and_no_others() -> None:
    _, command = made("enroot")
    assert [command[i + 1] for i, part in enumerate(command) if part == "--env"] == [
        "NCCL_IB_HCA",
        "SLURM_PROCID",
    ]
    assert command[-len(RANK) - 1 :] == ("/here", *RANK)


def test_pyxis_takes_options_of_srun_and_the_jobs_values_win() -> None:
    options, command = made("pyxis")
    assert command == RANK
    assert "--container-env=NCCL_IB_HCA,SLURM_PROCID" in options


def test_alps_takes_an_environment_file() -> None:
    assert made("edf", "run.toml") == (("--environment=run.toml",), RANK)
