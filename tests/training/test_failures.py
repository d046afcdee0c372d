"""Who says what ends a run: one rank, once, on the console, in its log and in the events."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from local_runs import command
from torch.distributed import HashStore

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.run_directory import RunDirectory, read_events
from megatron_salamandra.training import failures as failures_module
from megatron_salamandra.training.failures import Failures, Verdict

SUPPORT = Path(__file__).parents[1] / "support"
DAMAGED = "a shard is damaged\n  copy it again\n"
LOST = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.7]:23750.")


@pytest.mark.parametrize(
    ("ranks", "in_step", "how"), [([1], True, "refuse"), ([0], True, "refuse"), ([1], False, "fail")]
)
def test_an_error_is_said_once_by_rank_0_or_by_the_rank_that_finds_it_alone(
    blend: Path, tmp_path: Path, ranks: list[int], in_step: bool, how: str
) -> None:
    options = {"ranks": ranks, "in_step": in_step, "how": how}
    callback = {"path": "sample_callbacks:Refuses", "options": options}
    finished = subprocess.run(
        command(blend, tmp_path / "run", f"callbacks={json.dumps([callback])}"),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        timeout=200,
    )
    assert finished.returncode == 1
    (rank,), host, run = ranks, socket.gethostname(), RunDirectory(tmp_path / "run")
    if how == "refuse":
        speaker = f"rank {rank} on {host}: " if rank else ""
        said = finished.stderr.partition(speaker + DAMAGED)
        assert said[1] and not said[2], finished.stderr
        assert "Traceback" not in finished.stderr
    else:
        assert finished.stderr.count("Traceback") == 1
        assert finished.stderr.count("RuntimeError: a bug of ours") == 1
        assert f"rank {rank} on {host} failed; log: {run.rank_log(rank)}" in finished.stderr
    assert "Connection" not in finished.stderr
    failures = [event.details for event in read_events(run.events) if event.kind == "failure"]
    assert [(event["rank"], event["host"]) for event in failures] == [(rank, host)]
    error = "a shard is damaged" if how == "refuse" else "RuntimeError: a bug of ours"
    assert error in failures[0]["error"]
    assert run.rank_log(rank).read_text().count(error) == 1
    assert error not in run.rank_log(1 - rank).read_text()


def settled(errors: list[Exception | None], monkeypatch: pytest.MonkeyPatch) -> list[Verdict | None]:
    """What each rank is to do with its error; ranks without one are still at work."""
    monkeypatch.setattr(failures_module, "RANK_0_SECONDS", 0.2)
    store = HashStore()
    ranks = [Failures(rank, rank, len(errors), store) for rank in range(len(errors))]

    def settle(failures: Failures, error: Exception | None) -> Verdict | None:
        return None if error is None else failures.settle(error)

    with ThreadPoolExecutor(len(errors)) as threads:
        return list(threads.map(settle, ranks, errors))


SAY, QUIET = Verdict.SAY, Verdict.QUIET


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        # All find it: rank 0 speaks.
        ([UserError("a"), UserError("a"), UserError("a")], [SAY, QUIET, QUIET]),
        ([TypeError("a"), TypeError("a"), TypeError("a")], [SAY, QUIET, QUIET]),
        # Rank 2 alone.
        ([None, None, UserError("a")], [None, None, SAY]),
        # Two have something else to say.
        ([None, UserError("a"), OSError("b")], [None, SAY, SAY]),
        ([UserError("b"), UserError("a"), UserError("b")], [SAY, SAY, QUIET]),
    ],
)
def test_every_error_is_said_by_one_rank(
    errors: list[Exception | None], expected: list[Verdict | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled(errors, monkeypatch) == expected


def test_an_error_that_several_ranks_but_not_rank_0_find_is_said_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settled([None, UserError("a"), UserError("a")], monkeypatch)
    assert sorted(str(verdict) for verdict in found) == sorted(map(str, [None, SAY, QUIET]))


def test_ranks_that_lose_another_one_repeat_its_reason_and_stay_quiet() -> None:
    store = HashStore()
    ranks = [Failures(rank, rank, 3, store) for rank in range(3)]
    refused = UserError("a shard is damaged")
    refused.exit_code = 2
    assert ranks[0].settle_user_error(refused) is SAY
    assert (refused.said, refused.of_one_rank) == (False, False)
    for rank in ranks[1:]:
        assert rank.settle(LOST) is QUIET
        cause = rank.cause
        assert cause is not None
        assert str(cause) == f"rank 0 on {socket.gethostname()}: a shard is damaged"
        assert (cause.exit_code, cause.said) == (2, True)


def test_one_rank_says_that_another_was_killed() -> None:
    store = HashStore()
    verdicts = [Failures(rank, rank, 3, store).settle(LOST) for rank in (2, 0)]
    assert verdicts == [Verdict.SAY_LOSS, QUIET]


def test_where_the_store_has_gone_one_rank_of_each_host_speaks() -> None:
    class Gone:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("Connection reset by peer")

    verdicts = [Failures(rank, rank % 2, 4, Gone()).settle(LOST) for rank in (1, 2, 3)]  # type: ignore[arg-type]
    assert verdicts == [Verdict.SAY_LOSS, Verdict.SAY_LOSS, QUIET]
    own = Failures(3, 1, 4, Gone())  # type: ignore[arg-type]
    assert own.settle(OSError(5, "Input/output error")) is SAY


def test_a_storage_that_fails_for_all_does_not_fill_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures_module, "RANK_0_SECONDS", 0.0)
    store = HashStore()
    verdicts = [Failures(rank, rank, 99, store).settle(OSError(5, str(rank))) for rank in range(20)]
    assert verdicts.count(SAY) == failures_module.MOST_ERRORS
