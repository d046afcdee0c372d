"""How a rank is put into a container, for each runtime that clusters have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.cluster.profile import Container
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE

_HANDED_ON = (
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "MASTER_",
    "SLURM_",
    "SALAMANDRA_",
    "NCCL_",
    "NVTE_",
    "TORCH_",
    "TRITON_",
    "CUDA_",
    "OMP_",
    "HF_",
    "TRANSFORMERS_",
    "UCX_",
    "FI_",
)
"""Beginnings of the names of variables that a rank needs, for runtimes that start with an empty environment."""


class ContainerError(UserError):
    """The image or the runtime cannot be used."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class RankCommand:
    """What srun gets: options of its own, and the command of each task."""

    srun_options: tuple[str, ...]
    command: tuple[str, ...]


def in_container(
    command: Sequence[str],
    container: Container | None,
    image: str | None,
    *,
    directories: Sequence[Path],
    working_directory: Path,
    environment: Mapping[str, str],
) -> RankCommand:
    """The command of a rank inside an image; as it is where there is none.

    Args:
        command: of the rank, beginning with an interpreter of the image.
        image: path, or a name that the runtime knows; for Alps' container engine an environment file (EDF).
        directories: that the rank reads or writes, made visible under their own names.
        environment: of the rank; the runtimes that start empty get those variables that it needs.
    Raises:
        ContainerError: an image without a runtime in the cluster's profile.
    """
    if image is None:
        return RankCommand((), tuple(command))
    if container is None:
        raise ContainerError(
            f"--container {image}: the cluster's profile names no container runtime\n"
            "  add `container: {runtime: apptainer}` to the profile (singularity, apptainer, enroot, pyxis, edf)"
        )
    mounts = [*container.mounts, *dict.fromkeys(f"{path}:{path}" for path in directories)]
    if container.runtime in ("singularity", "apptainer"):
        inside = [
            container.runtime,
            "exec",
            "--nv",
            "--bind",
            ",".join(mounts),
            "--pwd",
            str(working_directory),
            image,
        ]
        return RankCommand((), (*inside, *command))
    if container.runtime == "enroot":
        names = sorted(name for name in environment if name.startswith(_HANDED_ON))
        options = [part for mount in mounts for part in ("--mount", mount)]
        options += [part for name in names for part in ("--env", name)]
        # enroot has no option for the working directory.
        move = ("bash", "-c", 'cd "$1" && shift && exec "$@"', "_", str(working_directory))
        return RankCommand((), ("enroot", "start", *options, image, *move, *command))
    if container.runtime == "pyxis":
        options = [
            f"--container-image={image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={working_directory}",
            # Else the image's value of a variable wins over the job's.
            f"--container-env={','.join(sorted(name for name in environment if name.startswith(_HANDED_ON)))}",
        ]
        return RankCommand(tuple(options), tuple(command))
    return RankCommand((f"--environment={image}",), tuple(command))
