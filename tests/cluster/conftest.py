"""SLURM laboratories, one with each common way to track processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from slurm_lab import Lab, laboratory, remove_abandoned_labs
from training_run import STEPS, Losses, TrainingRun

from megatron_salamandra.run_directory import MetricsLog

RECOVERY = "SALAMANDRA_RECOVERY_TIMES"
"""Variable with the JSON lines file that recovery times are appended to; docs/operations.md has its table."""
_PROPERTY = "recovery"


class Recovers(Protocol):
    """A run that tells how long it took from a fault to its next round, and to the next step."""

    def recovery(self, fault: float) -> tuple[float, float]: ...


@pytest.fixture(scope="session", params=["cgroup", "pgid"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts; their processes are tracked as on most sites, and in the other common way."""
    with laboratory(3, request.param) as made:
        yield made


def pytest_unconfigure(config: pytest.Config) -> None:
    """Processes of a session that was interrupted end without cleaning up."""
    if not hasattr(config, "workerinput"):
        remove_abandoned_labs()


@pytest.fixture
def whole_lab(lab: Lab) -> Iterator[Lab]:
    """The lab, with every host, daemon and link in order again afterwards."""
    yield lab
    lab.restore()


@pytest.fixture(scope="session")
def undisturbed(lab: Lab, blend: Path, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Losses of a run that nothing happened to; the first test process that needs it makes it for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    metrics = MetricsLog(shared / "undisturbed/metrics.jsonl")
    with (shared / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if [record.step for record in metrics.read()] != list(range(1, STEPS + 1)):
            run = TrainingRun(lab, blend, shared / "undisturbed")
            assert run.end() == "COMPLETED", run.text()
    losses = [(record.step, record.loss) for record in metrics.read()]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    return losses


@pytest.fixture(autouse=True)
def nothing_waits_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails must not leave jobs on the nodes of the next one."""
    made = request.getfixturevalue("lab") if "lab" in request.fixturenames else None
    yield
    if made is not None:
        with contextlib.suppress(AssertionError):  # the controller of a test that failed may be away
            made.on("ctl", "scancel", "--user=root")


@pytest.fixture
def note(lab: Lab, request: pytest.FixtureRequest) -> Callable[[str, Recovers, float], None]:
    """Writes down how long a run took to come back: the fault's name, the run, ``time.time()`` of the fault."""
    real = "training" in request.node.module.__name__

    def write(fault: str, run: Recovers, moment: float) -> None:
        to_round, to_step = run.recovery(moment)
        entry = {
            "fault": fault,
            "tracking": lab.tracking,
            "program": "trainer" if real else "stand-in",
            # A round may begin, and wait for SLURM, before the moment that is counted from.
            "to_round": max(0.0, round(to_round, 1)),
            "to_step": round(to_step, 1),
            "load": round(os.getloadavg()[0], 1),
            "time": round(time.time()),
        }
        request.node.user_properties.append((_PROPERTY, entry))  # reaches pytest's main process
        if path := os.environ.get(RECOVERY):
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")

    return write


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The recovery times of this session."""
    times = [
        entry
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, entry in report.user_properties
        if name == _PROPERTY
    ]
    if not times:
        return
    terminalreporter.section(
        "recovery: median seconds from the fault to the next round, and to its first step"
    )
    for line in recovery_table(times):
        terminalreporter.write_line(line)


def recovery_table(times: list[dict[str, str | float]]) -> list[str]:
    """Markdown, one row for each fault and program."""
    lines = [
        "| fault | program | times measured | to the next round, s | to the next step, s | load of the machine |",
        "|---|---|---|---|---|---|",
    ]
    rows = sorted({(str(entry["fault"]), str(entry["program"])) for entry in times})
    for fault, program in rows:
        found = [entry for entry in times if (entry["fault"], entry["program"]) == (fault, program)]
        medians = [
            statistics.median(float(entry[name]) for entry in found)
            for name in ("to_round", "to_step", "load")
        ]
        lines.append(
            f"| {fault} | {program} | {len(found)} | {medians[0]:.0f} | {medians[1]:.0f} | {medians[2]:.0f} |"
        )
    return lines
