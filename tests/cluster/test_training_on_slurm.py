"""The real trainer on a real SLURM of several hosts: whatever happens, the run ends by itself, with the same losses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG
from slurm_lab import REPOSITORY, Lab, wait_until
from supervised_run import LabJob

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


Losses = list[tuple[int, float]]
Note = Callable[[str, "TrainingRun", float], None]


class TrainingRun(LabJob):
    """A run of two hosts with one rank each, submitted by hand as a user would.

    Args:
        more: overrides of the configuration.
        sbatch: options of sbatch that win over the others.
    """

    def __init__(self, lab: Lab, blend: Path, path: Path, *more: str, sbatch: tuple[str, ...] = ()) -> None:
        self.lab, self.directory = lab, RunDirectory(path)
        self.log = path.with_suffix(".log")
        script = path.with_name(f"{path.name}-{len(list(path.parent.glob('*.sh')))}.sh")
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
        self.job = lab.submit(script, f"--export=ALL,{environment}", *sbatch)

    def wait_for_step(self, step: int) -> None:
        wait_until(
            lambda: any(r.step >= step for r in MetricsLog(self.directory.metrics).read()), 240, self.text
        )

    def end(self, seconds: float = 400.0) -> str:
        return super().end(seconds)

    def losses(self) -> list[tuple[int, float]]:
        return [(record.step, record.loss) for record in MetricsLog(self.directory.metrics).read()]

    def causes(self) -> list[str]:
        return [entry.outcome.cause.value for entry in RoundBook(self.directory.path).read()]

    def wait_for_round(self, number: int) -> None:
        note = self.directory.control / f"round-{number:04d}" / "began.json"
        wait_until(note.exists, 240, self.text)

    def recovery(self, fault: float) -> tuple[float, float]:
        """Seconds from a fault to the start of the next round, and until it trains: its first sign of life."""

        def began() -> float:
            notes = self.directory.control.glob("round-*/began.json")
            return max((note.stat().st_mtime for note in notes), default=0.0)

        def last_beat() -> float:
            beat = ControlFiles(self.directory.path).last_beat()
            return beat.time if beat is not None else 0.0

        wait_until(lambda: began() > fault, 300, self.text)
        wait_until(lambda: last_beat() > began(), 300, self.text)
        return began() - fault, last_beat() - fault

    def rank_of(self, host: str) -> int:
        """Process number, inside its host, of the rank there."""
        return int(
            self.lab.on(host, "pgrep", "--oldest", "--full", "megatron_salamandra.slurm_rank").split()[0]
        )


@pytest.fixture
def whole_lab(lab: Lab) -> Iterator[Lab]:
    """The lab, with every host, daemon and link in order again afterwards."""
    yield lab
    lab.restore()


@pytest.fixture(scope="session")
def undisturbed(lab: Lab, blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Losses of a run that nothing happened to; the first test process that needs it makes it for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    metrics = MetricsLog(shared / "undisturbed/metrics.jsonl")
    with (shared / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if [record.step for record in metrics.read()] != list(range(1, STEPS + 1)):
            run = TrainingRun(lab, blend, shared / "undisturbed")
            assert run.end() == "COMPLETED", run.text()
    losses = [(record.step, record.loss) for record in metrics.read()]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    return losses


def test_the_signal_before_the_time_limit_twice_and_while_a_save_runs(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note
) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "checkpoint.every_steps=1", "checkpoint.keep_last=2")
    for step, number in ((9, 1), (25, 2)):
        run.wait_for_step(step)
        fault = time.time()
        lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
        run.wait_for_round(number + 1)
    note("signal before the time limit", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "stopped", "done"]
    assert run.losses() == undisturbed


def test_the_signal_with_saves_that_training_waits_for(
    lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses
) -> None:
    run = TrainingRun(
        lab, blend, tmp_path / "run", "checkpoint.asynchronous=false", "checkpoint.every_steps=2"
    )
    run.wait_for_step(12)
    lab.on("ctl", "scancel", "--signal=USR1", "--batch", run.job)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["stopped", "done"]
    assert run.losses() == undisturbed


def test_a_killed_rank(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(23)
    fault = time.time()
    lab.on("node2", "kill", "-KILL", str(run.rank_of("node2")))
    note("a rank is killed", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["crash", "done"]
    assert run.losses() == undisturbed
    assert lab.field(run.job, "Restarts") == "0"


def test_a_frozen_rank(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", "hangs.step_seconds=30")
    run.wait_for_step(23)
    fault = time.time()
    lab.on("node2", "kill", "-STOP", str(run.rank_of("node2")))
    note("a rank is frozen", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["hang", "done"]
    assert run.losses() == undisturbed
    assert "rank 1 on node2: no sign of life for" in run.text()
    failure = RoundBook(run.directory.path).read()[0].outcome.failure
    assert failure is not None and (failure.rank, failure.host) == (1, "node2")


def test_preemption(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run", sbatch=("--partition=low",))
    run.wait_for_step(13)
    other = tmp_path / "other.sh"
    other.write_text("#!/bin/bash\nsleep 2\n")
    fault = time.time()
    lab.submit(other, "--partition=main", "--nodes=3", "--exclusive", f"--output={tmp_path}/other.log")
    note("preemption", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["preempted", "done"]
    assert run.losses() == undisturbed


def test_scontrol_requeue(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    lab.on("ctl", "scontrol", "requeue", run.job)
    note("scontrol requeue", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() in (["preempted", "done"], ["lost", "done"])
    assert run.losses() == undisturbed


@pytest.mark.parametrize("host", ["node2", "node1"])
def test_a_host_is_gone(
    whole_lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note, host: str
) -> None:
    run = TrainingRun(whole_lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    whole_lab.call("off", host)
    note(f"power of {'the batch host' if host == 'node1' else 'a node'} gone", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == (["node", "done"] if host == "node2" else ["lost", "done"])
    assert run.losses() == undisturbed


@pytest.mark.parametrize("host", ["node2", "node1"])
def test_a_link_is_cut_and_comes_back(
    whole_lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses, note: Note, host: str
) -> None:
    """The rank that was cut off lives on, and must not write into the next round."""
    run = TrainingRun(whole_lab, blend, tmp_path / "run")
    run.wait_for_step(13)
    fault = time.time()
    whole_lab.call("link", host, "down")
    run.wait_for_round(2)
    with contextlib.suppress(AssertionError):  # it may have ended already
        whole_lab.call("link", host, "up")
    note(f"link of {'the batch host' if host == 'node1' else 'a node'} cut", run, fault)
    assert run.end() == "COMPLETED", run.text()
    assert run.causes()[-1] == "done"
    assert run.losses() == undisturbed


def test_two_jobs_of_one_run(lab: Lab, blend: Path, tmp_path: Path, undisturbed: Losses) -> None:
    run = TrainingRun(lab, blend, tmp_path / "run")
    run.wait_for_step(5)
    second = TrainingRun(lab, blend, tmp_path / "run")
    assert second.end() == "FAILED"
    assert lab.field(second.job, "ExitCode") == "2:0"
    assert "is being used by process" in run.text()
    assert f"job {run.job}" in run.text()
    assert run.end() == "COMPLETED", run.text()
    assert run.causes() == ["done"]
    assert run.losses() == undisturbed


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
