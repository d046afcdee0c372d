"""The node check of a job: all nodes are asked before a round, and the round takes those that are fit."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import read_json_object, write_json
from megatron_salamandra.node_check import (
    RESULT_LINE,
    TOKEN,
    ClockServer,
    Grade,
    NodeResult,
    Verdict,
    choose,
    judge,
)

_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 5.0
_WARNINGS_TOLD = 10


@dataclass(frozen=True)
class NodeCheck:
    """How a node is asked.

    Attributes:
        command: of one node's task, to which directory and options are added; in the image that ranks run in.
        srun_options: of the container's runtime, and CPUs of the task.
        environment: of the task, as ranks have it.
        gpus: that a node needs; None takes what there is, 0 looks at CPUs alone.
        seconds: until a node that has not answered counts as silent. A node bounds its own checks to less.
    """

    command: Sequence[str]
    srun_options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: int | None = None
    seconds: float = 90.0


@dataclass(frozen=True)
class Fit:
    """The nodes of a round.

    Attributes:
        hosts: that train; none if too few are fit.
        bad: that failed the check or did not answer it.
        findings: a line for each node that is not good.
    """

    hosts: tuple[str, ...]
    bad: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def fit_nodes(
    check: NodeCheck,
    hosts: Sequence[str],
    lost: Sequence[str],
    needed: int,
    directory: Path,
    say: Callable[[str], None],
    interrupted: Callable[[], bool] = lambda: False,
) -> Fit:
    """Ask all ``hosts`` and choose ``needed`` of them.

    A check that cannot be run stops no run: then the first nodes are taken as they are, and that is said.

    Args:
        hosts: of the allocation, best first.
        lost: those of which SLURM hears nothing: they are not asked.
        directory: for the results, one file for each host.
        interrupted: whether somebody waits for the job to end: then it is not checked any further.
    """
    started = time.monotonic()
    answering = [host for host in hosts if host not in lost]
    if len(answering) < needed:
        # A broken network of SLURM's own is no reason to ask nobody.
        return Fit(tuple(hosts[:needed]))
    try:
        results = _ask(check, answering, directory, interrupted)
    except (OSError, UserError) as error:
        say(f"the nodes were not checked: {error}")
        return Fit(tuple(answering[:needed]))
    if interrupted():
        return Fit(tuple(answering[:needed]))
    verdicts = judge(results, answering)
    verdicts |= {
        host: Verdict(host, Grade.SILENT, ("SLURM holds it for lost",))
        for host in hosts
        if host not in answering
    }
    verdicts = {host: verdicts[host] for host in hosts}
    choice = choose(verdicts, needed)
    say(
        f"node check: {len(results)} of {len(hosts)} nodes answered in {time.monotonic() - started:.0f} s "
        f"({directory})"
    )
    findings = [verdict.text() for verdict in (*choice.left_out, *choice.kept_slow)]
    for verdict in choice.left_out:
        say(f"left out: {verdict.text()}")
    for verdict in choice.kept_slow:
        say(f"kept, because there is no spare node: {verdict.text()}")
    warnings = [f"{text} ({_named(named, len(hosts))})" for text, named in _warnings(verdicts).items()]
    for text in warnings[:_WARNINGS_TOLD]:
        say(f"warning: {text}")
    if len(warnings) > _WARNINGS_TOLD:
        say(f"{len(warnings) - _WARNINGS_TOLD} further warnings are in {directory}")
    if not choice.hosts:
        say(f"{needed} nodes are needed, and fewer are fit")
    bad = [verdict.host for verdict in verdicts.values() if verdict.grade in (Grade.FAILED, Grade.SILENT)]
    return Fit(choice.hosts, tuple(bad), tuple(findings))


def _warnings(verdicts: Mapping[str, Verdict]) -> dict[str, list[str]]:
    """Each warning with the hosts that gave it: what all say is told once."""
    found: dict[str, list[str]] = {}
    for host, verdict in verdicts.items():
        for warning in verdict.warnings:
            found.setdefault(warning, []).append(host)
    return found


def _named(hosts: Sequence[str], of: int) -> str:
    return f"all {of} nodes" if len(hosts) == of > 1 else ", ".join(hosts)


def _ask(
    check: NodeCheck, hosts: Sequence[str], directory: Path, interrupted: Callable[[], bool]
) -> list[NodeResult]:
    """What the nodes answer; in one step, and each alone that this step, for the sake of another, did not start.

    Raises:
        OSError, WriteError: ``directory`` cannot be written, or srun cannot be started.
    """
    token = uuid.uuid4().hex
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.json"):
        old.unlink()
    atomic_write_text(directory / TOKEN, token)
    with ClockServer() as clock:
        arguments = [str(directory), "--token", token, "--clock", clock.address]
        if check.gpus is not None:
            arguments += ["--gpus", str(check.gpus)]
        deadline = time.monotonic() + check.seconds
        step = _Asking(check, hosts, arguments, directory)
        step.wait(deadline, interrupted)
        silent = [host for host in hosts if host not in step.results()]
        results = step.results()
        if silent and time.monotonic() < deadline and len(hosts) > 1:
            deadline = time.monotonic() + check.seconds
            steps = [_Asking(check, [host], arguments, directory) for host in silent]
            for one in steps:
                one.wait(deadline, interrupted)
                results |= one.results()
    return [results[host] for host in hosts if host in results]


class _Asking:
    """One srun of the check on some hosts."""

    def __init__(
        self, check: NodeCheck, hosts: Sequence[str], arguments: Sequence[str], directory: Path
    ) -> None:
        self._hosts, self._directory = hosts, directory
        self._told: dict[str, NodeResult] = {}
        self._process = subprocess.Popen(
            [
                "srun",
                "--overlap",
                "--kill-on-bad-exit=0",
                "--no-kill",
                f"--nodes={len(hosts)}",
                f"--ntasks={len(hosts)}",
                "--ntasks-per-node=1",
                f"--nodelist={','.join(hosts)}",
                *check.srun_options,
                *check.command,
                *arguments,
            ],
            env={**os.environ, **check.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def results(self) -> dict[str, NodeResult]:
        """Of the hosts that have answered, by the file they wrote or the line they printed."""
        found = {}
        for host in self._hosts:
            with contextlib.suppress(UserError, ValueError):
                path = self._directory / f"{host}.json"
                if path.exists():
                    found[host] = NodeResult.from_dict(read_json_object(path))
                elif host in self._told:
                    found[host] = self._told[host]
                    write_json(path, found[host].to_dict())
        return found

    def wait(self, deadline: float, interrupted: Callable[[], bool]) -> None:
        """Until all have answered, srun ends, or it is too late; then srun is ended."""
        while self._process.poll() is None and time.monotonic() < deadline and not interrupted():
            if len(self.results()) == len(self._hosts):
                deadline = min(deadline, time.monotonic() + _LEAVE_SECONDS)
            time.sleep(_POLL_SECONDS)
        for end in (self._process.terminate, self._process.kill):
            if self._process.poll() is None:
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_LEAVE_SECONDS)
        self._reader.join(_LEAVE_SECONDS)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            _, mark, text = line.partition(RESULT_LINE)
            if mark:
                with contextlib.suppress(ValueError):
                    result = NodeResult.from_dict(json.loads(text))
                    self._told[result.host] = result
