"""A run of the real trainer in a laboratory, and what a test asks of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from rank_jobs import SMALL_CONFIG
from slurm_lab import REPOSITORY, Lab, wait_until
from supervised_run import LabJob

from megatron_salamandra.cluster import ControlFiles, RoundBook
from megatron_salamandra.run_directory import MetricsLog, RunDirectory

Losses = list[tuple[int, float]]
STEPS = 40
OVERRIDES = [
    f"training.steps={STEPS}",
    "checkpoint.every_steps=10",
    "platform=host",
    "validation.at_end=false",
]
PYTHONPATH = f"{REPOSITORY}:{REPOSITORY / 'data_prep'}:{REPOSITORY / 'kernels'}"


class TrainingRun(LabJob):
    """A run of two hosts with one rank each, submitted by hand as a user would.

    Args:
        more: overrides of the configuration.
        sbatch: options of sbatch that win over the others.
        environment: of launch/pretrain.sbatch, beside what every run has.
    """

    def __init__(
        self,
        lab: Lab,
        blend: Path,
        path: Path,
        *more: str,
        sbatch: tuple[str, ...] = (),
        environment: Mapping[str, str] = {},
    ) -> None:
        self.lab, self.directory = lab, RunDirectory(path)
        self.log = path.with_suffix(".log")
        script = path.with_name(f"{path.name}-{len(list(path.parent.glob('*.sh')))}.sh")
        # What a user has in the environment; the lab's hosts share this machine's files.
        variables = {
            "OMP_NUM_THREADS": "1",
            "SALAMANDRA_NODE_CHECK": "off",
            "PYTHONPATH": PYTHONPATH,
            **environment,
        }
        script.write_text(
            "#!/bin/bash\n"
            f"#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=1\n#SBATCH --signal=B:USR1@60\n"
            f"#SBATCH --requeue\n#SBATCH --no-kill\n#SBATCH --open-mode=append\n#SBATCH --output={self.log}\n"
            f"export {' '.join(f'{name}={shlex.quote(value)}' for name, value in variables.items())}\n"
            f"exec bash {REPOSITORY / 'launch/pretrain.sbatch'} {SMALL_CONFIG} data.blend={blend} run_dir={path} "
            f"{' '.join([*OVERRIDES, *more])}\n"
        )
        self.job = lab.submit(script, f"--export=ALL,SALAMANDRA_PYTHON={sys.executable}", *sbatch)

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
        """Process number, inside its host, of the rank there; not of the srun of the batch host."""
        rank = r"^[^ ]*python.* megatron_salamandra\.slurm_rank "
        return int(self.lab.on(host, "pgrep", "--oldest", "--full", rank).split()[0])
