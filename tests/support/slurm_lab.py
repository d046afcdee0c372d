"""A SLURM cluster of several hosts on this machine, for tests; slurm_lab.sh makes it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "slurm_lab.sh"
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Lab:
    """A running cluster; hosts are ``ctl`` and ``node1`` onwards.

    Attributes:
        shape: of its nodes, as variables of slurm_lab.sh: CPUS, GPUS, MEMORY, PARTITION.
    """

    directory: Path
    nodes: int
    tracking: str
    shape: Mapping[str, str] = field(default_factory=dict)

    @property
    def small_disk(self) -> Path:
        """A disk of 1 MiB that all hosts see."""
        return self.directory / "small"

    def call(self, *arguments: str) -> str:
        environment = {
            **os.environ,
            "LAB": str(self.directory),
            "NODES": str(self.nodes),
            "PROCTRACK": self.tracking,
            **self.shape,
        }
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def on(self, host: str, *command: str) -> str:
        """Output of a command that runs on a host."""
        return self.call("in", host, *command)

    def hosts(self) -> list[str]:
        """Nodes that have power."""
        return [
            host
            for host in (f"node{number}" for number in range(1, self.nodes + 1))
            if (self.directory / "run" / f"{host}.pid").exists()
        ]

    def wait_for_idle(self, seconds: float = 90.0) -> None:
        """Until every node waits for a job."""
        wait_until(
            lambda: (
                self.on("ctl", "sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip()
                == str(self.nodes)
            ),
            seconds,
            lambda: self.on("ctl", "sinfo", "-N", "-o", "%N %T %E"),
        )

    def restore(self) -> None:
        """Give every host back its power, daemon and link, end all jobs, and wait until all nodes are idle."""
        if not self._runs("ctl", "slurmctld -D"):
            self.call("daemon", "ctl")
            wait_until(self.controller_answers, 60)
        self.on("ctl", "scancel", "--user=root")
        for number in range(1, self.nodes + 1):
            host = f"node{number}"
            if host not in self.hosts():
                self.call("on", host)
                continue
            self.call("link", host, "up")
            if not self._runs(host, "slurmd -D"):
                self.call("daemon", host)
        for number in range(1, self.nodes + 1):
            with contextlib.suppress(AssertionError):  # it is in order
                self.on("ctl", "scontrol", "update", f"NodeName=node{number}", "State=RESUME")
        self.wait_for_idle()

    def _runs(self, host: str, program: str) -> bool:
        try:
            return bool(self.on(host, "pgrep", "--full", program).strip())
        except AssertionError:
            return False

    def controller_answers(self) -> bool:
        try:
            self.on("ctl", "scontrol", "ping")
        except AssertionError:
            return False
        return True

    def submit(self, script: Path, *options: str) -> str:
        """Number of the job."""
        return self.on("ctl", "sbatch", "--parsable", *options, str(script)).strip()

    def field(self, job: str, name: str) -> str:
        fields = dict(
            pair.split("=", 1)
            for pair in self.on("ctl", "scontrol", "show", "job", job, "--oneliner").split()
            if "=" in pair
        )
        return fields[name]

    def end_of(self, job: str, seconds: float = 60.0) -> str:
        """State of a job once it has ended for good."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        wait_until(lambda: self.field(job, "JobState") in ended, seconds, lambda: self.on("ctl", "squeue"))
        return self.field(job, "JobState")


@contextlib.contextmanager
def laboratory(nodes: int, tracking: str, **shape: str) -> Iterator[Lab]:
    """A cluster while the block runs; the test is skipped where there can be none."""
    if why := missing():
        pytest.skip(why)
    # Not below pytest's directory: munge wants every directory above its socket open to all.
    directory = Path(tempfile.mkdtemp(prefix=f"lab-{tracking}-"))
    lab = Lab(directory, nodes, tracking, shape)
    try:
        lab.call("up")
        yield lab
    finally:
        lab.call("down")
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(true: Callable[[], bool], seconds: float, explain: Callable[[], str] = str) -> None:
    """Look again and again, and fail when the time is over."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"nothing after {seconds} s: {explain()}")
        time.sleep(0.1)


def missing() -> str:
    """Why there can be no laboratory here; empty if there can."""
    if os.geteuid() != 0:
        return "a SLURM laboratory needs root"
    absent = [
        name
        for name in ("slurmctld", "slurmd", "munged", "ip", "unshare", "nsenter")
        if not shutil.which(name)
    ]
    if absent:
        return f"not installed: {', '.join(absent)} (make test-cluster installs them)"
    # Exactly what a host is made of; containers often forbid it to root.
    host = [
        "unshare",
        "--net",
        "--uts",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
    ]
    links = "mount -t proc proc /proc && ip link add br0 type bridge && ip link add v0 type veth peer name v1"
    done = subprocess.run(
        [*host, "sh", "-c", f"hostname lab && {links}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return f"hosts cannot be made here: {done.stderr.strip()}" if done.returncode else ""


def batch_script(path: Path, program: str, log: Path, *directives: str) -> Path:
    """A batch script in whose place a Python program runs."""
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {directive}" for directive in (*directives, f'--output="{log}"', "--open-mode=append")),
        f"export PYTHONPATH={shlex.quote(f'{REPOSITORY}:{REPOSITORY}/data_prep:{REPOSITORY}/kernels')}",
        "trap '' USR1",
        f"exec {shlex.quote(sys.executable)} {program}",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
