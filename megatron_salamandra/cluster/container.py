"""How a rank is put into a container, for each runtime that clusters have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

_NOT_THE_HOSTS = {"PYTHONPATH": "", "PYTHONHOME": "", "PYTHONNOUSERSITE": "1"}
"""Ranks import what the image holds: nothing of the submitter's environment, and nothing of a mounted home."""

_MOVE = ("bash", "-c", 'cd "$1" && shift && exec "$@"', "_")
"""Goes to the directory that comes next, and becomes the command after it; for runtimes without such an option."""

# Which variables there are is known in the task alone: srun gives each its own, and a name without a value would be
# set to nothing, which hides every GPU if it is CUDA_VISIBLE_DEVICES. The shell becomes enroot.
_ENROOT = """options=()
while read -r name; do
  case $name in {patterns}) options+=(--env "$name") ;; esac
done < <(compgen -e)
exec enroot start --rw "${{options[@]}}" "$@"
"""


class ContainerError(UserError):
    """The image or the runtime cannot be used."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class RankCommand:
    """What srun gets: options of its own, the command of each task, and variables for both."""

    srun_options: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


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
        environment: that the cluster's profile adds to the job's; it wins over the image's, as all variables do that
            ranks are known to need.
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
    here = str(working_directory)
    if container.runtime in ("singularity", "apptainer"):
        runtime = (container.runtime, "exec", "--nv", "--bind", ",".join(mounts), "--pwd", here)
        return RankCommand((), (*runtime, image, *command), _NOT_THE_HOSTS)
    if container.runtime == "enroot":
        patterns = [f"{name}*" for name in _HANDED_ON] + sorted(environment)
        start = _ENROOT.format(patterns=" | ".join(patterns))
        options = [part for mount in mounts for part in ("--mount", mount)]
        options += ["--env", "PYTHONNOUSERSITE=1"]
        return RankCommand((), ("bash", "-c", start, "enroot", *options, image, *_MOVE, here, *command))
    if container.runtime == "pyxis":
        own = sorted({*environment, *(name for name in os.environ if name.startswith(_HANDED_ON))})
        options = [
            f"--container-image={image}",
            f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={here}",
            "--no-container-mount-home",
            # Compilers of kernels write into a home of the image, because the host's is not there.
            "--container-writable",
            # Else the image's value of a variable wins over the job's.
            f"--container-env={','.join(own)}",
        ]
        return RankCommand(tuple(options), tuple(command), _NOT_THE_HOSTS)
    # The file names image, mounts and variables: its [env] alone wins over the image.
    return RankCommand((f"--environment={image}",), (*_MOVE, here, *command), _NOT_THE_HOSTS)
