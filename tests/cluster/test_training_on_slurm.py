"""The real trainer on a real SLURM of several hosts: whatever happens, the run ends by itself, with the same losses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG
from slurm_lab import REPOSITORY, Lab, wait_until

from megatron_salamandra.cluster import ControlFiles, RoundBook
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, latest_checkpoint

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

STEPS = 40
OVERRIDES = [
    f"training.steps={STEPS}",
    "checkpoint.every_steps=10",
    "platform=host",
    "validation.at_end=false",
]


class TrainingRun:
    """A run of two hosts with one rank each, submitted by hand as a user would."""

    def __init__(self, lab: Lab, blend: Path, path: Path, *more: str) -> None:
        self.lab, self.directory = lab, RunDirectory(path)
        self.log = path.with_suffix(".log")
        script = path.with_suffix(".sh")
        # What a user has in the environment; the lab's hosts share this machine's files.
        script.write_text(
            "#!/bin/bash\n"
            f"#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=1\n#SBATCH --signal=B:USR1@60\n"
            f"#SBATCH --requeue\n#SBATCH --no-kill\n#SBATCH --open-mode=append\n#SBATCH --output={self.log}\n"
            f"export PYTHONPATH={REPOSITORY}:{REPOSITORY / 'data_prep'}:{REPOSITORY / 'kernels'} OMP_NUM_THREADS=1\n"
            "export SALAMANDRA_NODE_CHECK=off\n"
            f"exec bash {REPOSITORY / 'launch/pretrain.sbatch'} {SMALL_CONFIG} data.blend={blend} run_dir={path} "
            f"{' '.join([*OVERRIDES, *more])}\n"
        )
        environment = f"SALAMANDRA_PYTHON={sys.executable}"
        self.job = lab.submit(script, f"--export=ALL,{environment}")

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else "no log"

    def wait_for_step(self, step: int) -> None:
        wait_until(
            lambda: any(r.step >= step for r in MetricsLog(self.directory.metrics).read()), 150, self.text
        )

    def end(self) -> str:
        try:
            return self.lab.end_of(self.job, 240)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from error

    def losses(self) -> list[tuple[int, float]]:
        return [(record.step, record.loss) for record in MetricsLog(self.directory.metrics).read()]

    def causes(self) -> list[str]:
        return [entry.outcome.cause.value for entry in RoundBook(self.directory.path).read()]

    def rank_of(self, host: str) -> int:
        """Process number, inside its host, of the rank there."""
        return int(
            self.lab.on(host, "pgrep", "--oldest", "--full", "megatron_salamandra.slurm_rank").split()[0]
        )


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, blend: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    run = TrainingRun(lab, blend, tmp_path_factory.mktemp("reference") / "run")
    assert run.end() == "COMPLETED", run.text()
    assert [step for step, _ in run.losses()] == list(range(1, STEPS + 1))
    return run.losses()


def test_the_signal_before_the_time_limit(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: list[tuple[int, float]]
) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed
    assert lab.field(run.job, "Restarts") == "1"


def test_a_killed_rank(lab: Lab, blend: Path, tmp_path: Path, undisturbed: list[tuple[int, float]]) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(23)
    lab.on("node2", "kill", "-KILL", str(run.rank_of("node2")))
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.losses() == undisturbed
    assert lab.field(run.job, "Restarts") == "0"


def test_a_team_mate_stops_the_run_and_it_stays_stopped(lab: Lab, blend: Path, tmp_path: Path) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "training.steps=100000")
    run.wait_for_step(5)
    ControlFiles(run.directory.path).ask("stop", "the queue is full")
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["requested"]
    assert latest_checkpoint(run.directory.checkpoints) is not None


def test_a_wrong_configuration_ends_before_a_rank_is_started(lab: Lab, blend: Path, tmp_path: Path) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "training.stepz=3")
    assert run.end() == "FAILED"
    assert lab.field(run.job, "ExitCode") == "2:0"
    assert "did you mean training.steps" in run.text()
    assert "srun" not in run.text()
