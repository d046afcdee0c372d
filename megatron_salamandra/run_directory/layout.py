"""Where everything of a run lies: the one place that knows the names in a run directory.

::

    RUN/
      config.yaml          the configuration with every default spelled out
      blend.lock.yaml      the blend as it was at the first start
      blend.NAME.lock.yaml the blend of a later phase, as it was when the phase began
      ordinals.lock.yaml   where each language started, if the run goes on from an earlier one
      metrics.jsonl        one object per step                      (metrics.py)
      units.json           the unit of each metric by its name
      validation.jsonl     one object per language and validation   (validation.py)
      events.jsonl         start, resume, checkpoint, stop, ...     (events.py)
      environment.json     versions, hosts and layout of the latest start
      tensorboard/         the same numbers as curves
      logs/rank-NNNN.log   a log for each rank
      rounds.jsonl         one object per round, on a cluster
      control/             requests to the run, its heartbeat, and what ranks of a round are in and how they ended
      node-check/NNNN/     what each node said of itself before a round, HOST.json
      launch/NNNN/         a job as it was submitted
      checkpoints/         one directory for each saved step        (checkpoints.py)
      incidents/           steps that were not like the others      (incidents.py)
      profile/             traces of the steps that were to be profiled
      report.html          everything above on one page, written at every end
      .owner, .lock        whose the directory is while a run uses it (owner.py)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROUND_DIR = "SALAMANDRA_ROUND_DIR"
"""Variable in which a launcher names the directory of its round, one start of all ranks, to them."""

CONFIG = "config.yaml"
"""The resolved configuration: of the latest start in a run directory, of the training in a checkpoint."""


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run. Nothing is read or written by asking for them."""

    path: Path

    @classmethod
    def around(cls, checkpoint: Path) -> RunDirectory:
        """The run directory that a checkpoint (``RUN/checkpoints/step-NNNNNNNN``) lies in."""
        # Absolute, so that a checkpoint named from inside its own directory is found as well; links are kept.
        return cls(Path(os.path.abspath(checkpoint)).parent.parent)

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def blend_lock(self) -> Path:
        return self.path / "blend.lock.yaml"

    def phase_blend_lock(self, number: int, name: str) -> Path:
        """The blend of a phase, counted from 0, as it was when the phase began."""
        return self.blend_lock if number == 0 else self.path / f"blend.{name}.lock.yaml"

    @property
    def ordinals_lock(self) -> Path:
        return self.path / "ordinals.lock.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def units(self) -> Path:
        return self.path / "units.json"

    @property
    def validation(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def owner(self) -> Path:
        return self.path / ".owner"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def control(self) -> Path:
        return self.path / "control"

    def node_check(self, round_number: int) -> Path:
        """Where the nodes' results lie, one file for each host; rounds count from 1."""
        return self.path / "node-check" / f"{round_number:04d}"

    @property
    def stacks_wanted(self) -> Path:
        """Whoever touches it gets the stacks of all ranks, in the directory of their round."""
        return self.control / "stacks"

    def round(self, name: str) -> Path:
        """What the ranks of one start leave there."""
        return self.control / f"round-{name}"

    @property
    def launches(self) -> Path:
        return self.path / "launch"

    @property
    def incidents(self) -> Path:
        return self.path / "incidents"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def rank_log(self, rank: int) -> Path:
        """Log file of a rank, counted from 0; error messages name it."""
        return self.logs / f"rank-{rank:04d}.log"
