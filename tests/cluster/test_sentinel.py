"""When a sentinel brings back a job whose supervisor is gone, and when it lets it rest."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import pytest

from megatron_salamandra.cluster import sentinel, slurm
from megatron_salamandra.cluster.slurm_command import SlurmError

RUNNING = "JobState=RUNNING Restarts=2 ExitCode=0:0"
HOST = "node1"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A sentinel is a process of its own, and blocks SIGTERM in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.sigtimedwait((signal.SIGTERM,), 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def done_by_a_sentinel(monkeypatch: pytest.MonkeyPatch, story: Sequence[str]) -> list[str]:
    """The jobs that a sentinel of restart 2 requeues.

    Args:
        story: what SLURM says of the job, look after look: its fields; ``away``; with ``TERM`` first, the sentinel gets
            that signal before it looks.
    """
    looks = iter(story)
    done: list[str] = []

    def answer(command: Sequence[str]) -> str:
        if command[:2] == ["scontrol", "requeue"]:
            done.append(command[2])
            return ""
        if command[:3] == ["scontrol", "show", "hostnames"]:
            return command[3].replace(",", "\n")
        said = next(looks)
        if said == "away":
            raise SlurmError("Unable to contact slurm controller")
        return said

    def wait(numbers: object, seconds: float) -> object:
        nonlocal looks
        said = next(looks)
        looks = iter((said.removeprefix("TERM "), *looks))
        return object() if said.startswith("TERM ") else None

    monkeypatch.setattr(sentinel, "answer", answer)
    monkeypatch.setattr(slurm, "answer", answer)
    monkeypatch.setattr(sentinel.signal, "sigtimedwait", wait)
    sentinel.watch("40", 2, HOST, 0.01)
    monkeypatch.undo()
    return done


STORIES: dict[str, tuple[list[str], bool]] = {
    "host lost": ([f"{RUNNING} NodeList=node1,node2", *[f"{RUNNING} NodeList=node2"] * 2], True),
    "host lost, controller away": (
        ["away", f"{RUNNING} NodeList=node2", "away", f"{RUNNING} NodeList=node2"],
        True,
    ),
    "host between two states": (
        [f"{RUNNING} NodeList=node2", f"{RUNNING} NodeList=node1", "JobState=COMPLETED Restarts=2"],
        False,
    ),
    "suspended, and its host lost later": (
        ["JobState=SUSPENDED Restarts=2 NodeList=node1,node2", *[f"{RUNNING} NodeList=node2"] * 2],
        True,
    ),
    "job done": (["JobState=COMPLETED Restarts=2 NodeList=node2"], False),
    "started again by somebody": (["JobState=RUNNING Restarts=3 NodeList=node2"], False),
    "relieved": ([f"TERM {RUNNING} NodeList=node1,node2"], False),
    "host set down": (["TERM JobState=COMPLETING Restarts=2 ExitCode=0:9 NodeList=node2"], True),
    "host set down, controller away": (
        ["TERM away", "JobState=FAILED Restarts=2 ExitCode=0:9 NodeList=node2"],
        True,
    ),
    "supervisor killed": (["TERM JobState=COMPLETING Restarts=2 ExitCode=0:9 NodeList=node1,node2"], False),
    "cancelled": (["TERM JobState=COMPLETING Restarts=2 ExitCode=0:15 NodeList=node1,node2"], False),
    "cancelled after its host was lost": (
        ["TERM JobState=COMPLETING Restarts=2 ExitCode=0:0 NodeList=node2"],
        False,
    ),
}


@pytest.mark.parametrize("what", STORIES)
def test_a_job_comes_back_if_its_supervisor_lost_its_host_and_else_not(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    story, comes_back = STORIES[what]
    done = done_by_a_sentinel(monkeypatch, story)
    assert done == (["40"] if comes_back else [])
