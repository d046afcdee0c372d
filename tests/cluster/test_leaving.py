"""How a job goes back into the queue with a controller that was away for a moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from megatron_salamandra.cluster import SlurmJob, leaving
from megatron_salamandra.cluster.leaving import JobEnd
from megatron_salamandra.cluster.rounds import Action, Decision
from megatron_salamandra.cluster.slurm import JobNow
from megatron_salamandra.cluster.slurm_command import SlurmError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE


class Job(SlurmJob):
    """Its first request is lost, as by a controller that is away."""

    def requeue(self) -> None:
        REQUESTS.append(self.job)
        if len(REQUESTS) == 1:
            raise SlurmError("Unable to contact slurm controller")


REQUESTS: list[str] = []


class Calendar:
    """Says what it is told, one answer for each look; None: the controller is away."""

    def __init__(self, *looks: JobNow | None) -> None:
        self._looks, self.answers, self.now = list(looks), True, running(0)

    def look(self) -> None:
        now = self._looks.pop(0)
        self.answers = now is not None
        self.now = now or self.now


def running(restarts: int, state: str = "RUNNING") -> JobNow:
    return JobNow.from_fields({"JobState": state, "Restarts": str(restarts)})


@pytest.fixture(autouse=True)
def _signals_and_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    REQUESTS.clear()
    monkeypatch.setattr(leaving.time, "sleep", lambda seconds: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("looks", "code", "requests"),
    [
        ((None, running(0)), EXIT_DONE, 2),
        ((None, running(0, "CANCELLED")), EXIT_FAILURE, 1),
        ((None, running(0, "COMPLETING")), EXIT_FAILURE, 1),
        ((None, running(1, "PENDING")), EXIT_DONE, 1),
        ((running(1, "PENDING"),), EXIT_DONE, 1),
        ((None, None), EXIT_DONE, 2),
    ],
    ids=["away", "cancelled", "ends", "heard all the same", "heard at once", "asked without an answer"],
)
def test_a_job_that_was_ended_while_the_controller_was_away_stays_ended(
    looks: tuple[JobNow | None, ...], code: int, requests: int
) -> None:
    said: list[str] = []
    calendar: Any = Calendar(*looks)
    end = JobEnd(Job("7", 0, ("node1",), 1), calendar, said.append, lambda: None)
    assert end.leave(Decision(Action.REQUEUE, "stopped")) == code
    assert len(REQUESTS) == requests
    if code == EXIT_FAILURE:
        assert "does not go back into the queue" in said[-1]
