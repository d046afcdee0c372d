"""Which rank the others wait for: the time that each spends on a step before it first waits for all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from megatron_salamandra.hangs import RoundFiles, round_directory
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.report import StepReport

SLOW = 1.3
"""So many times the median of all ranks is slow."""
PERSISTENT_STEPS = 20
_NOISE_SECONDS = 0.02
"""Less than this a step is no straggler's, whatever the ratio."""


class Stragglers(Callback):
    """Records the slowest rank every ``logging.console_every_steps`` steps, and tells once when one stays slow.

    Ranks of one tensor-parallel group wait for each other inside the step, so they are slow together.
    """

    def __init__(self) -> None:
        self._busy: list[float] = []
        self._steps = 0
        self._slow_rank: int | None = None
        self._slow_steps = 0
        self._told = False

    def to_sum(self, step: int) -> Sequence[float]:
        """Every rank's mean over the steps before this one, since ranks were compared; zero in the others' places."""
        if self.run.world_size == 1 or step % self.run.config.logging.console_every_steps or not self._busy:
            return ()
        mine = [0.0] * self.run.world_size
        mine[self.run.rank] = statistics.fmean(self._busy)
        return mine

    def after_step(self, report: StepReport) -> None:
        self._steps += 1
        if self.name in report.sums:
            self._compare(report.sums[self.name], report.step)
            self._steps, self._busy = 0, []
        self._busy.append(report.busy_seconds)

    def after_roll_back(self, step: int) -> None:
        self._busy.clear()

    def _compare(self, seconds: Sequence[float], step: int) -> None:
        """Look at the mean busy seconds of all ranks over the last steps."""
        median = statistics.median_low(seconds)
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        excess = seconds[slowest] - median
        self.run.record("ranks/slowest", slowest)
        self.run.record("ranks/slowest_excess_seconds", round(excess, 6), "s")
        self.run.record("ranks/median_busy_seconds", round(median, 6), "s")
        if seconds[slowest] <= SLOW * median or excess < _NOISE_SECONDS:
            self._slow_rank, self._slow_steps, self._told = None, 0, False
            return
        if slowest != self._slow_rank:
            self._slow_rank, self._slow_steps, self._told = slowest, 0, False
        self._slow_steps += self._steps
        if self._slow_steps >= PERSISTENT_STEPS and not self._told:
            self._told = True
            if self.run.is_writer:
                self._tell(slowest, step, seconds[slowest], median)

    def _tell(self, rank: int, step: int, seconds: float, median: float) -> None:
        # Not gathered: every rank says in its record where it runs.
        record = RoundFiles(round_directory(self.run.directory)).read(rank)
        host = record.host if record is not None else "a host that is not known"
        text = (
            f"rank {rank} on {host} has been slow for {self._slow_steps} steps: {seconds:.3f} s a step before it "
            f"waits, the median is {median:.3f} s"
        )
        self.run.logger.warning("%s; all others wait for it", text)
        self.run.events.write("straggler", step=step, rank=rank, host=host, reason=text)
