"""launch/pretrain.sbatch and launch/task.sh with stand-ins for srun, scontrol, squeue and training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "launch" / "pretrain.sbatch"

SRUN = """#!/bin/bash
# Runs two tasks as srun would, passes SIGUSR1 on to them, and ends with the highest of their codes.
printf '%s\\n' "$@" >"$RECORD/srun"
while [[ $1 == --* ]]; do
  [[ $1 != --container-image=* ]] || cd / # pyxis starts in the image's own directory
  shift
done
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 "$@" & pids[rank]=$!
done
signalled=0
trap 'signalled=1; for pid in "${pids[@]}"; do kill -USR1 $pid $(pgrep -P $pid); done' USR1
worst=0
for task in "${pids[@]}"; do
  while :; do
    signalled=0; wait "$task"; code=$?
    ((signalled)) || break
  done
  ((code <= worst)) || worst=$code
done
exit "$worst"
"""

SCONTROL = """#!/bin/bash
case "$1" in
  show)
    [[ $2 != hostnames ]] || printf 'gpu-17\\ngpu-18\\n'
    [[ $2 != job ]] || echo "JobId=7 JobState=$JOB_STATE Reason=None" ;;
  requeue) echo "$2" >"$RECORD/requeued" ;;
esac
"""

SQUEUE = """#!/bin/bash
echo 2099-01-01T00:00:00
"""

TRAINING = """#!{python}
import json, os, signal, sys, time
stop = []
signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))
rank = os.environ["RANK"]
record = os.environ["RECORD"]
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SRUN_CPUS_PER_TASK", "NCCL_IB_HCA")
with open(f"{{record}}/rank-{{rank}}.part", "w") as file:
    seen = {{name: os.environ.get(name) for name in names}}
    json.dump({{"argv": sys.argv[1:], "directory": os.getcwd(), **seen}}, file)
os.rename(f"{{record}}/rank-{{rank}}.part", f"{{record}}/rank-{{rank}}")
if rank == "0" and "TRAINING_REASON" in os.environ:
    with open(os.environ["SALAMANDRA_STOP_FILE"], "w") as file:
        file.write(os.environ["TRAINING_REASON"])
code = int(os.environ["TRAINING_CODE"])
deadline = time.monotonic() + 30
while code < 0 and not stop and time.monotonic() < deadline:
    time.sleep(0.02)
sys.exit(75 if stop else code)
"""


@dataclass
class Cluster:
    """A directory with the stand-ins on PATH, and what they recorded."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        return self.directory / "record"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env={**self.environment, **environment},
            cwd=self.directory,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def rank(self, number: int) -> dict[str, object]:
        return dict(json.loads((self.record / f"rank-{number}").read_text()))

    def wait_for(self, *names: str) -> None:
        deadline = time.monotonic() + 30
        while not all((self.record / name).exists() for name in names):
            assert time.monotonic() < deadline, f"{names} did not appear"
            time.sleep(0.02)

    def only_tasks_are_signalled(self) -> None:
        """From now on srun's signals reach the tasks it has started, not what these have started."""
        srun = self.directory / "srun"
        srun.write_text(
            srun.read_text().replace(
                "kill -USR1 $pid $(pgrep -P $pid)", 'kill -"${SIGNAL_FOR_TASKS:-USR1}" $pid'
            )
        )

    @property
    def requeued(self) -> bool:
        return (self.record / "requeued").exists()


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "record").mkdir()
    programs = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "squeue": SQUEUE,
        "training": TRAINING.format(python=sys.executable),
    }
    for name, text in programs.items():
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SALAMANDRA"))
    }
    environment |= {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "gpu-[17-18]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "20",
        "SALAMANDRA_ROOT": str(REPOSITORY),
        "SALAMANDRA_PYTHON": str(tmp_path / "training"),
        "SALAMANDRA_STOP_FILE": str(tmp_path / "stopped"),
        "JOB_STATE": "RUNNING",
        "TRAINING_CODE": "0",
    }
    return Cluster(tmp_path, environment)


def test_every_task_gets_its_rank_and_the_first_node_as_master(cluster: Cluster) -> None:
    code, output = cluster.run("configs/x.yaml", "parallel.tensor=2", "note=two words")
    assert code == 0, output
    for number in (0, 1):
        rank = cluster.rank(number)
        assert (rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) == (str(number), str(number), "2")
        assert (rank["MASTER_ADDR"], rank["MASTER_PORT"]) == ("gpu-17", "15007")
        assert rank["argv"] == [
            "-u",
            "-m",
            "megatron_salamandra.train",
            "configs/x.yaml",
            "parallel.tensor=2",
            "note=two words",
        ]


def test_cpus_per_task_are_passed_to_srun(cluster: Cluster) -> None:
    cluster.run("configs/x.yaml")
    assert "--cpus-per-task=20" in (cluster.record / "srun").read_text().splitlines()
    assert cluster.rank(0)["SRUN_CPUS_PER_TASK"] == "20"


def test_pyxis_runs_the_images_project_in_the_repository(cluster: Cluster) -> None:
    code, output = cluster.run(
        "configs/x.yaml",
        SALAMANDRA_CONTAINER="image.sqsh",
        SALAMANDRA_CONTAINER_RUNTIME="pyxis",
        SALAMANDRA_CONTAINER_MOUNTS="/scratch:/data",
    )
    assert code == 0, output
    given = (cluster.record / "srun").read_text().splitlines()
    assert "--container-image=image.sqsh" in given
    assert f"--container-mounts=/scratch:/data,{REPOSITORY}:{REPOSITORY}" in given
    assert f"--container-workdir={REPOSITORY}" in given
    for number in (0, 1):
        assert cluster.rank(number)["directory"] == str(REPOSITORY)
        assert cluster.rank(number)["argv"] == [
            "-P",
            "-u",
            "-m",
            "megatron_salamandra.train",
            "configs/x.yaml",
        ]


def test_a_crash_takes_the_other_ranks_down(cluster: Cluster) -> None:
    code, _ = cluster.run("configs/x.yaml", TRAINING_CODE="1")
    assert code == 1
    assert not cluster.requeued
    assert "--kill-on-bad-exit=1" in (cluster.record / "srun").read_text().splitlines()


def test_code_75_puts_the_job_back_into_the_queue(cluster: Cluster) -> None:
    code, output = cluster.run("configs/x.yaml", TRAINING_CODE="75")
    assert code == 75, output
    assert (cluster.record / "requeued").read_text() == "7\n"


def test_a_stop_that_the_configuration_asked_for_is_not_requeued(cluster: Cluster) -> None:
    code, output = cluster.run(
        "configs/x.yaml", TRAINING_CODE="75", TRAINING_REASON="training.stop_after_steps"
    )
    assert (code, cluster.requeued) == (0, False)
    assert "training.stop_after_steps" in output
    code, output = cluster.run("configs/x.yaml", TRAINING_CODE="75", TRAINING_REASON="signal SIGUSR1")
    assert (code, cluster.requeued) == (75, True)


def test_a_signal_to_the_task_alone_reaches_training(cluster: Cluster) -> None:
    """Under proctrack/cgroup SLURM signals the direct child of its daemon and nothing that this has started."""
    cluster.only_tasks_are_signalled()
    process = cluster.start("configs/x.yaml", TRAINING_CODE="-1")
    cluster.wait_for("rank-0", "rank-1")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert cluster.requeued


@pytest.mark.parametrize("number", ["USR1", "TERM"])
def test_a_signal_before_the_first_line_of_training_finds_nothing_begun(
    cluster: Cluster, number: str
) -> None:
    """An interpreter that is still starting dies of it, as SLURM sends it at once where the time limit is short."""
    cluster.only_tasks_are_signalled()
    training = cluster.directory / "training"
    training.write_text(
        f"#!/bin/bash\ntouch $RECORD/starting-$RANK\ntrap - USR1 TERM\nexec sleep 30 # {number}\n"
    )
    process = cluster.start("configs/x.yaml", SIGNAL_FOR_TASKS=number)
    cluster.wait_for("starting-0", "starting-1")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert cluster.requeued


def test_a_finished_run_is_not_requeued(cluster: Cluster) -> None:
    code, _ = cluster.run("configs/x.yaml")
    assert (code, cluster.requeued) == (0, False)


def test_a_word_left_by_an_earlier_round_is_not_believed(cluster: Cluster) -> None:
    (cluster.directory / "stopped").touch()
    code, _ = cluster.run("configs/x.yaml")
    assert (code, cluster.requeued) == (0, False)


def test_a_cancelled_job_is_not_requeued_although_it_saved(cluster: Cluster) -> None:
    code, output = cluster.run("configs/x.yaml", TRAINING_CODE="75", JOB_STATE="COMPLETING")
    assert (code, cluster.requeued) == (143, False)
    assert "not queued again" in output


def test_requeueing_ends_after_the_allowed_rounds(cluster: Cluster) -> None:
    code, output = cluster.run(
        "configs/x.yaml", TRAINING_CODE="75", SLURM_RESTART_COUNT="3", SALAMANDRA_MAX_REQUEUES="3"
    )
    assert (code, cluster.requeued) == (75, False)
    assert "SALAMANDRA_MAX_REQUEUES" in output


def test_a_signal_to_the_batch_script_reaches_every_task_and_requeues(cluster: Cluster) -> None:
    process = cluster.start("configs/x.yaml", TRAINING_CODE="-1")
    cluster.wait_for("rank-0", "rank-1")
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert cluster.requeued
    assert "SIGUSR1" in output


def test_a_missing_interpreter_is_a_failure(cluster: Cluster) -> None:
    code, _ = cluster.run("configs/x.yaml", SALAMANDRA_PYTHON="/nowhere/python")
    assert (code, cluster.requeued) == (127, False)


def test_profile_values_can_be_overridden(cluster: Cluster) -> None:
    cluster.run("configs/x.yaml", SALAMANDRA_PROFILE="marenostrum5")
    assert cluster.rank(0)["NCCL_IB_HCA"] == "mlx5"
    cluster.run("configs/x.yaml", SALAMANDRA_PROFILE="marenostrum5", NCCL_IB_HCA="mlx5_0")
    assert cluster.rank(0)["NCCL_IB_HCA"] == "mlx5_0"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "usage"),
        (["configs/x.yaml"], {"SALAMANDRA_PROFILE": "nowhere"}, "marenostrum5.sh"),
        (["configs/x.yaml"], {"SALAMANDRA_ROOT": "/nowhere"}, "SALAMANDRA_ROOT"),
    ],
)
def test_misuse_is_refused_before_srun(
    cluster: Cluster, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    code, output = cluster.run(*arguments, **environment)
    assert code == 2
    assert message in output
    assert not (cluster.record / "srun").exists()
