"""One supervised run of stand-in ranks in a laboratory, and what a test asks of it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

from slurm_lab import Lab, batch_script, wait_until


class LabJob:
    """A job of the lab, and what it says."""

    lab: Lab
    job: str
    log: Path

    def end(self, seconds: float = 150.0) -> str:
        """State of the job once it has ended for good."""
        try:
            return self.lab.end_of(self.job, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from error

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else "no log"


class SupervisedRun(LabJob):
    """A job of stand-in ranks.

    Args:
        options: of the stand-in.
        nodes: that train; the job has ``allocated``.
        more: options of sbatch that win over the others.
        path: for the script and the log, and for the run directory unless ``directory`` says another place.
        name: of the run directory; one that is there goes on.
    """

    def __init__(
        self,
        lab: Lab,
        path: Path,
        options: str,
        *,
        nodes: int = 2,
        allocated: int = 2,
        more: tuple[str, ...] = (),
        name: str = "run",
        directory: Path | None = None,
    ) -> None:
        self.lab, self.directory = lab, (directory or path) / name
        self.directory.mkdir(exist_ok=True)
        number = len(list(path.glob("job-*.sh")))
        self.log = path / f"job-{number}.log"
        program = shlex.quote(str(Path(__file__).parent / "supervise_stand_in.py"))
        script = batch_script(
            path / f"job-{number}.sh",
            f"{program} {shlex.quote(str(self.directory))} {nodes} {options}",
            self.log,
            f"--nodes={allocated}",
            "--ntasks-per-node=1",
            "--cpus-per-task=1",
            "--no-kill",
            "--requeue",
            "--time=0:30:00",
        )
        self.script = script
        self.job = lab.submit(script, *more)

    @classmethod
    def submitted(cls, lab: Lab, job: str, directory: Path, log: Path, script: Path) -> SupervisedRun:
        """The run of a job that was submitted by other means, as an element of an array is."""
        run = cls.__new__(cls)
        run.lab, run.job, run.directory, run.log, run.script = lab, job, directory, log, script
        return run

    def metrics(self) -> list[dict[str, Any]]:
        """Lines of all steps; one that is being written is left out."""
        path = self.directory / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def steps(self) -> list[int]:
        return [line["step"] for line in self.metrics()]

    def wait_for_step(self, step: int) -> None:
        wait_until(lambda: any(reached >= step for reached in self.steps()), 90, self.text)

    def wait_for_text(self, text: str) -> None:
        wait_until(lambda: text in self.text(), 120, self.text)

    def rounds(self) -> list[dict[str, Any]]:
        path = self.directory / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def causes(self) -> list[str]:
        return [entry["outcome"]["cause"] for entry in self.rounds()]

    def last_saved(self) -> int:
        return int(json.loads((self.directory / "state.json").read_text())["step"])

    def restarts(self) -> int:
        return int(self.lab.field(self.job, "Restarts"))

    def assert_whole(self, steps: int) -> None:
        """Every step was done, each round went on where a save was, and no rank of the run is left anywhere."""
        assert sorted(set(self.steps())) == list(range(1, steps + 1)), self.text()
        by_round: dict[int, list[int]] = {}
        for line in self.metrics():
            by_round.setdefault(line["round"], []).append(line["step"])
        for done in by_round.values():
            assert done == list(range(done[0], done[0] + len(done))), by_round
        ends = [line["round"] for line in self.metrics()]
        assert ends == sorted(ends), "a round wrote into a later one"
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        wait_until(lambda: not self.processes(), 30, lambda: str(self.processes()))

    def processes(self) -> list[str]:
        """Supervisors and ranks of this run on all hosts."""
        found = []
        for host in self.lab.hosts():
            text = self.lab.on(host, "sh", "-c", "ps -eo pid,args ww || true")
            found += [
                f"{host}: {line.strip()}"
                for line in text.splitlines()
                if str(self.directory) in line
                and "_stand_in" in line.replace("stand_in_training", "_stand_in")
            ]
        return found

    def recovery(self, fault: float) -> tuple[float, float]:
        """Seconds from a fault to the next step's first round start, and to the first step done in it.

        Args:
            fault: ``time.time()`` when it happened.
        """
        later = [line for line in self.metrics() if line["time"] > fault]
        before = {line["round"] for line in self.metrics() if line["time"] <= fault}
        first = next(line for line in later if line["round"] not in before)
        note = self.directory / "control" / f"round-{first['round']:04d}" / "began.json"
        return note.stat().st_mtime - fault, first["time"] - fault


def now() -> float:
    """For :meth:`SupervisedRun.recovery`."""
    return time.time()
