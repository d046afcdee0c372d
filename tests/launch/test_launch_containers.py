"""How launch/task.sh enters a container, and how launch/submit.sh calls sbatch, with recording stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
RECORDER = '#!/bin/bash\nprintf "%s\\n" "$0" "$@" >"$RECORD/call"\nenv >"$RECORD/env"\n'
ENROOT = """#!/bin/bash
# Records the call, then runs the command as enroot would: in the image's own directory.
printf '%s\\n' "$0" "$@" >"$RECORD/call"
cd /
while [[ $1 != salamandra ]]; do shift; done
shift
"$@"
"""
PYTHON = '#!/bin/bash\n{ pwd; printf "%s\\n" "$@"; } >"$RECORD/python"\n'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    programs = dict.fromkeys(("singularity", "apptainer", "sbatch"), RECORDER)
    for name, text in (programs | {"enroot": ENROOT, "python3": PYTHON}).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SLURM", "SALAMANDRA", "SBATCH"))
    }
    return clean | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RECORD": str(tmp_path),
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "8",
        "MASTER_ADDR": "gpu-17",
        "MASTER_PORT": "15007",
        "SALAMANDRA_ROOT": str(REPOSITORY),
    }


def run(
    script: str, arguments: list[str], environment: dict[str, str], repository: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(repository / "launch" / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("runtime", ["singularity", "apptainer"])
def test_singularity_runs_training_in_the_image(runtime: str, environment: dict[str, str]) -> None:
    environment |= {
        "SALAMANDRA_CONTAINER": "/images/salamandra",
        "SALAMANDRA_CONTAINER_RUNTIME": runtime,
        "SALAMANDRA_CONTAINER_MOUNTS": "/scratch:/data",
    }
    done = run("task.sh", ["configs/x.yaml", "a=1"], environment)
    assert done.returncode == 0, done.stderr
    program, *call = Path(environment["RECORD"], "call").read_text().splitlines()
    assert Path(program).name == runtime
    root = str(REPOSITORY)
    assert call[:6] == ["exec", "--nv", "--bind", f"/scratch:/data,{root}", "--pwd", root]
    assert call[6:] == [
        "/images/salamandra",
        "python3",
        "-P",
        "-u",
        "-m",
        "megatron_salamandra.train",
        "configs/x.yaml",
        "a=1",
    ]


def test_enroot_is_given_the_ranks_variables(environment: dict[str, str]) -> None:
    environment |= {
        "SALAMANDRA_CONTAINER": "salamandra",
        "SALAMANDRA_CONTAINER_RUNTIME": "enroot",
        "NCCL_DEBUG": "INFO",
    }
    assert run("task.sh", ["configs/x.yaml"], environment).returncode == 0
    _, *call = Path(environment["RECORD"], "call").read_text().splitlines()
    handed_over = {value for option, value in pairwise(call) if option == "--env"}
    assert {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NCCL_DEBUG"} <= handed_over
    assert "PATH" not in handed_over
    assert ("--mount", f"{REPOSITORY}:{REPOSITORY}") in set(pairwise(call))


def test_enroot_runs_the_images_project_in_the_repository(environment: dict[str, str]) -> None:
    environment |= {"SALAMANDRA_CONTAINER": "salamandra", "SALAMANDRA_CONTAINER_RUNTIME": "enroot"}
    done = run("task.sh", ["configs/x.yaml", "note=two words"], environment)
    assert done.returncode == 0, done.stderr
    directory, *call = Path(environment["RECORD"], "python").read_text().splitlines()
    assert directory == str(REPOSITORY)
    assert call == ["-P", "-u", "-m", "megatron_salamandra.train", "configs/x.yaml", "note=two words"]


def test_an_unknown_runtime_is_refused(environment: dict[str, str]) -> None:
    environment |= {"SALAMANDRA_CONTAINER": "image", "SALAMANDRA_CONTAINER_RUNTIME": "jail"}
    done = run("task.sh", ["configs/x.yaml"], environment)
    assert done.returncode == 2
    assert "singularity, apptainer, enroot, pyxis" in done.stderr


def test_submit_gives_sbatch_the_profile_and_the_options(environment: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "launch", copy / "launch")
    done = run(
        "submit.sh",
        ["marenostrum5", "--nodes=64", "--", "configs/x.yaml", "run_dir=runs/x"],
        environment,
        copy,
    )
    assert done.returncode == 0, done.stderr
    _, *call = Path(environment["RECORD"], "call").read_text().splitlines()
    assert call == [
        "--output=logs/%x-%j.log",
        "--nodes=64",
        "launch/pretrain.sbatch",
        "configs/x.yaml",
        "run_dir=runs/x",
    ]
    exported = Path(environment["RECORD"], "env").read_text().splitlines()
    assert "SBATCH_PARTITION=acc" in exported
    assert "SLURM_CPU_BIND=none" in exported
    assert f"SALAMANDRA_PROFILE={copy}/launch/profiles/marenostrum5.sh" in exported
    assert (copy / "logs").is_dir(), "sbatch does not create the directory of --output"


@pytest.mark.parametrize("arguments", [[], ["generic"], ["generic", "--nodes=2", "configs/x.yaml"]])
def test_submit_explains_itself(arguments: list[str], environment: dict[str, str]) -> None:
    done = run("submit.sh", arguments, environment)
    assert done.returncode == 2
    assert "launch/submit.sh PROFILE" in done.stderr
