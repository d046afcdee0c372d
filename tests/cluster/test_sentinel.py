"""When a sentinel brings back a job whose supervisor is gone, and when it lets it rest."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import pytest

from megatron_salamandra.cluster import SlurmJob, sentinel, slurm
from megatron_salamandra.cluster.sentinel import Sentinels
from megatron_salamandra.cluster.slurm_command import SlurmError, SlurmSilent

RUNNING = "JobState=RUNNING Restarts=2 ExitCode=0:0"
HOST = "node1"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A sentinel is a process of its own, and blocks SIGTERM in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.sigtimedwait((signal.SIGTERM,), 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def done_by_a_sentinel(
    monkeypatch: pytest.MonkeyPatch, story: Sequence[str], refusals: Sequence[str] = ()
) -> list[str]:
    """The jobs that a sentinel of restart 2 asks SLURM to requeue.

    Args:
        story: what SLURM says of the job, look after look: its fields; ``away``; with ``TERM`` first, the sentinel gets
            that signal before it looks.
        refusals: what SLURM says to the first requests.
    """
    looks = iter(story)
    done: list[str] = []
    errors = iter(refusals)

    def answer(command: Sequence[str]) -> str:
        if command[:2] == ["scontrol", "requeue"]:
            done.append(command[2])
            if error := next(errors, ""):
                raise SlurmError(error)
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

    with monkeypatch.context() as during:
        during.setattr(sentinel, "answer", answer)
        during.setattr(slurm, "answer", answer)
        during.setattr(sentinel.signal, "sigtimedwait", wait)
        sentinel.watch("40", 2, HOST, 0.01)
    assert not list(looks), "the sentinel ended before the story"
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
    "cancelled between two looks, controller away": (
        [
            f"{RUNNING} NodeList=node2",
            "TERM away",
            "JobState=CANCELLED Restarts=2 ExitCode=0:15 NodeList=node2",
        ],
        False,
    ),
    "cancelled, and the signal comes twice": (
        [
            f"{RUNNING} NodeList=node2",
            "TERM away",
            "TERM away",
            "JobState=CANCELLED Restarts=2 NodeList=node2",
        ],
        False,
    ),
    "set down between two looks, controller away": (
        [f"{RUNNING} NodeList=node2", "TERM away", "JobState=FAILED Restarts=2 ExitCode=0:9 NodeList=node2"],
        True,
    ),
}


@pytest.mark.parametrize("what", STORIES)
def test_a_job_comes_back_if_its_supervisor_lost_its_host_and_else_not(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    story, comes_back = STORIES[what]
    done = done_by_a_sentinel(monkeypatch, story)
    assert done == (["40"] if comes_back else [])


BUSY = [
    "scontrol requeue 40: Unable to contact slurm controller (connect failure)",
    "scontrol requeue 40: slurm_requeue error: Socket timed out on send/recv operation",
    "scontrol requeue 40: no answer in 60 s",
    "scontrol requeue 40: Zero Bytes were transmitted or received",
]
LOST = f"{RUNNING} NodeList=node2"


@pytest.mark.parametrize("error", BUSY)
def test_a_busy_controller_is_asked_again(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    assert done_by_a_sentinel(monkeypatch, [LOST] * 3, [error]) == ["40"] * 2
    assert done_by_a_sentinel(monkeypatch, [LOST, LOST, "away", LOST, LOST], [error] * 2) == ["40"] * 3


@pytest.mark.parametrize("error", BUSY)
@pytest.mark.parametrize(
    "after",
    [
        ["JobState=PENDING Restarts=3 NodeList=(null)"],
        ["TERM away", "JobState=RUNNING Restarts=3 NodeList=node2,node3"],
        ["JobState=CANCELLED Restarts=2 ExitCode=0:15 NodeList=node2"],
        ["TERM away", "JobState=CANCELLED Restarts=2 ExitCode=0:15 NodeList=node2"],
    ],
    ids=["waiting", "started again", "cancelled", "cancelled while away"],
)
def test_a_request_whose_answer_was_lost_is_not_repeated_on_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, error: str, after: list[str]
) -> None:
    assert done_by_a_sentinel(monkeypatch, [LOST, LOST, *after], [error]) == ["40"]


@pytest.mark.parametrize(
    "error",
    ["Requested operation is presently disabled", "Access/permission denied", "Invalid job id specified"],
)
def test_a_controller_that_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    assert done_by_a_sentinel(monkeypatch, [LOST] * 2, [error]) == ["40"]


class Posted:
    """A job step that a test ends."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


def test_a_sentinel_is_posted_again_where_a_host_answers_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host may be what was lost since the round began."""
    monkeypatch.setenv("SLURMD_NODENAME", HOST)
    names = ("node1", "node2", "node3", "node4")
    states = dict.fromkeys(names, "allocated")
    monkeypatch.setattr(SlurmJob, "node_states", lambda self: states)
    posted: dict[str, Posted] = {}

    def start(self: Sentinels, host: str) -> Posted:
        posted[host] = Posted()
        return posted[host]

    monkeypatch.setattr(Sentinels, "_start", start)
    sentinels = Sentinels(SlurmJob("40", 2, names, 1), -1.0)
    sentinels.post()
    assert set(posted) == {"node2", "node4"}
    for state in ("lost", "down*"):
        posted.pop("node4").code = 1
        states.update(node4=state)
        sentinels.renew()
        assert set(posted) == {"node2", "node3"}
        posted.pop("node3").code = 1
        states.update(node4="allocated")
        sentinels.renew()
        assert set(posted) == {"node2", "node4"}
    sentinels.renew()
    assert set(posted) == {"node2", "node4"}


@pytest.mark.parametrize("silent", [True, False])
def test_where_slurm_does_not_tell_every_node_may_have_a_sentinel(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    def node_states(self: SlurmJob) -> dict[str, str]:
        if silent:
            raise SlurmSilent("sinfo: no answer in 60 s")
        return {"node1": "allocated", "node2": "lost"}

    monkeypatch.setenv("SLURMD_NODENAME", HOST)
    monkeypatch.setattr(SlurmJob, "node_states", node_states)
    posted: list[str] = []
    monkeypatch.setattr(Sentinels, "_start", lambda self, host: posted.append(host) or Posted())
    Sentinels(SlurmJob("40", 2, ("node1", "node2"), 1), 30.0).post()
    assert posted == (["node2"] if silent else [])
