"""All checks of this node, each in a process of its own, in under a minute."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.foundation.commands import run_command
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.parents import bound_command
from megatron_salamandra.foundation.world import free_port
from megatron_salamandra.node_check.result import Check, NodeResult, State

PROBE_SECONDS = 20.0
"""For a look at the host: nothing of it takes a second on a healthy node, but for Python's start on a busy disk."""
DEVICE_SECONDS = 35.0
"""For the devices: importing torch takes most of it."""
_STEPS_OF_DEVICE = ("matmul", "copy", "all_reduce")
_PROBE = "megatron_salamandra.node_check.probe"


@dataclass(frozen=True)
class Probe:
    """A process that makes checks.

    Attributes:
        name: of the check, where the process itself does not tell.
        arguments: of :mod:`megatron_salamandra.node_check.probe`.
        seconds: that it may take.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float


def check_node(
    directory: Path, *, gpus: int | None = None, clock: str | None = None, token: str | None = None
) -> NodeResult:
    """Check the node that this process runs on.

    Args:
        directory: where a run writes: space, locks and speed are those of its file system.
        gpus: that a run needs; None takes what there is; 0 checks the CPUs alone.
        clock: ``HOST:PORT`` of a host whose clock counts.
        token: what ``directory`` must hold, see :func:`check_run_dir`.
    """
    started = time.monotonic()
    host = [
        Probe("network", ("network",), PROBE_SECONDS),
        Probe("memory", ("memory",), PROBE_SECONDS),
        Probe("packages", ("packages",), PROBE_SECONDS),
        Probe("clock", ("clock", *([clock] if clock else [])), PROBE_SECONDS),
        Probe("run_dir", ("run_dir", str(directory), *([token] if token else [])), PROBE_SECONDS),
    ]
    if gpus != 0:
        host.append(Probe("gpu_state", ("gpu_state", *([str(gpus)] if gpus else [])), PROBE_SECONDS))
        host.append(Probe("xid", ("xid",), PROBE_SECONDS))
    checks = run_probes(host)
    # After the others: a CPU has no time to spare while it is measured.
    checks += run_probes(_device_probes(_usable_gpus(checks)))
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return NodeResult(name, tuple(checks), round(time.monotonic() - started, 3))


def check_directory(directory: Path) -> list[Check]:
    """Locks, free space and speed of writing in ``directory``; a file system that hangs is a failed check."""
    return run_probes([Probe("run_dir", ("run_dir", str(directory)), PROBE_SECONDS)])


def run_probes(probes: Sequence[Probe]) -> list[Check]:
    """Run probes side by side; one that hangs, dies or says nothing is a failed check."""
    found: list[list[Check]] = [[] for _ in probes]

    def run(number: int) -> None:
        found[number] = _run(probes[number])

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(probes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [check for checks in found for check in checks]


def _usable_gpus(checks: Sequence[Check]) -> int:
    """GPUs that a process of this job sees: a scheduler may give it fewer than the driver tells."""
    found = next(
        (len(check.figures.get("device_memory_gib", ())) for check in checks if check.name == "gpu_state"), 0
    )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        found if visible is None else min(found, len([name for name in visible.split(",") if name.strip()]))
    )


def _device_probes(gpus: int) -> list[Probe]:
    if gpus == 0:
        return [Probe("matmul", ("device",), DEVICE_SECONDS)]
    port = free_port()
    return [
        Probe(f"GPU {index}", ("device", str(index), str(gpus), str(port)), DEVICE_SECONDS)
        for index in range(gpus)
    ]


def _run(probe: Probe) -> list[Check]:
    command = bound_command([sys.executable, "-P", "-m", _PROBE, *probe.arguments], signal.SIGKILL)
    done = run_command(command, probe.seconds)
    checks = _told(done.output)
    if done.code is None:
        checks.append(_broken(probe, checks, f"no answer in {probe.seconds:g} s"))
    elif done.code != 0:
        last = done.errors.strip().splitlines()[-1:] or ["nothing was said"]
        checks.append(_broken(probe, checks, f"ended with code {done.code}: {last[0][:300]}"))
    return checks


def _told(output: str) -> list[Check]:
    checks = []
    for line in output.splitlines():
        # What a library prints is no check.
        with contextlib.suppress(ValueError, UserError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                checks.append(Check.from_dict(entry))
    return checks


def _broken(probe: Probe, done: list[Check], why: str) -> Check:
    if probe.arguments[0] != "device":
        return Check(probe.name, State.FAILED, why)
    left = [name for name in _STEPS_OF_DEVICE if name not in {check.name for check in done}]
    return Check(left[0] if left else "device", State.FAILED, f"{probe.name}: {why}".removeprefix("matmul: "))


def summary(result: NodeResult) -> str:
    """The result for people, a line for each check."""
    width = max(len(check.name) for check in result.checks)
    marks = {State.OK: " ", State.SKIPPED: "-", State.WARNING: "?", State.FAILED: "!"}
    return "\n".join(
        f"{marks[check.state]} {check.name:<{width}}  {check.message}" for check in result.checks
    )
