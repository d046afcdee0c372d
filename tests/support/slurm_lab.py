"""SLURM clusters of several hosts on this machine, for tests; slurm_lab.sh makes them.

Labs share nothing, so that any number of them run side by side. What one leaves behind whose process was killed (hosts,
mounts, control groups) goes away when the next lab starts, or at the end of the tests; labs that live are left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
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
_PREFIX = "salamandra-lab-"
_OWNER = "owner"
"""File in a lab's directory, locked by the process that has the lab for as long as that lives."""


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
        """What slurm_lab.sh says to a command."""
        environment = {"NODES": str(self.nodes), "PROCTRACK": self.tracking, **self.shape}
        return self._run("bash", str(SCRIPT), *arguments, **environment)

    def on(self, host: str, *command: str) -> str:
        """Output of a command that runs on a host."""
        try:
            first_process = (self.directory / "run" / f"{host}.pid").read_text().strip()
        except FileNotFoundError:
            raise AssertionError(f"{host} has no power") from None
        # As slurm_lab.sh does, but without a shell: tests ask all the time, and the cores are few.
        inside = ["nsenter", "--target", first_process, "--net", "--uts", "--mount", "--pid"]
        return self._run(*inside, f"--wdns={Path.cwd()}", "--", *command)

    def _run(self, *command: str, **environment: str) -> str:
        lab = {"LAB": str(self.directory), "SLURM_CONF": str(self.directory / "etc/slurm.conf")}
        done = subprocess.run(
            command,
            env={**os.environ, **lab, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if done.returncode:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

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
            poll_seconds=0.5,
        )

    def restore(self) -> None:
        """Give every host back its power, daemon and link, end all jobs, and wait until all nodes are idle."""
        if not self.runs("ctl", "slurmctld -D"):
            self.call("daemon", "ctl")
            wait_until(self.controller_answers, 60)
        self.on("ctl", "scancel", "--user=root")
        for number in range(1, self.nodes + 1):
            host = f"node{number}"
            if host not in self.hosts():
                self.call("on", host)
                continue
            self.call("link", host, "up")
            if not self.runs(host, "slurmd -D"):
                self.call("daemon", host)
        for number in range(1, self.nodes + 1):
            with contextlib.suppress(AssertionError):  # it is in order
                self.on("ctl", "scontrol", "update", f"NodeName=node{number}", "State=RESUME")
        self.wait_for_idle()

    def runs(self, host: str, program: str) -> bool:
        """Whether a process of the host has words like these."""
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

    def kill_controller(self, job: str) -> None:
        """Kill slurmctld, once it has written down what it knows of a job: it does so every few seconds."""
        mark = f"written {time.time_ns()}"
        self.on("ctl", "scontrol", "update", f"JobId={job}", f"Comment={mark}")
        state = self.directory / "state/job_state"
        wait_until(lambda: state.exists() and mark.encode() in state.read_bytes(), 60)
        self.call("kill", "ctl", "slurmctld -D")

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
        wait_until(
            lambda: self.field(job, "JobState") in ended,
            seconds,
            lambda: self.on("ctl", "squeue"),
            poll_seconds=0.5,
        )
        return self.field(job, "JobState")


@contextlib.contextmanager
def laboratory(nodes: int, tracking: str, **shape: str) -> Iterator[Lab]:
    """A cluster while the block runs; the test is skipped where there can be none."""
    if why := missing():
        pytest.skip(why)
    if tracking == "cgroup" and not os.access("/sys/fs/cgroup/freezer", os.W_OK):
        pytest.skip("proctrack/cgroup needs a writable cgroup v1 freezer")
    with _own_directory() as directory:
        lab = Lab(directory, nodes, tracking, shape)
        try:
            lab.call("up")
            yield lab
        finally:
            _remove(directory)


@contextlib.contextmanager
def _own_directory() -> Iterator[Path]:
    """A lab's directory, claimed by this process."""
    with _one_at_a_time():
        _sweep()
        # Not below pytest's directory: munge wants every directory above its socket open to all.
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        claim = (directory / _OWNER).open("w")
        fcntl.flock(claim, fcntl.LOCK_EX)
    with claim:
        yield directory


def remove_abandoned_labs() -> None:
    """End all labs of this user whose process is gone, and remove what they left on this machine."""
    if any(_labs()):
        with _one_at_a_time():
            _sweep()


def _sweep() -> None:
    for directory in _labs():
        with contextlib.suppress(FileNotFoundError), (directory / _OWNER).open("a") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it lives
                continue
            _remove(directory)


def _labs() -> list[Path]:
    found = Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/")
    return [directory for directory in found if directory.stat().st_uid == os.geteuid()]


def _remove(directory: Path) -> None:
    subprocess.run(["bash", str(SCRIPT), "down"], env={**os.environ, "LAB": str(directory)}, check=False)
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / f"{_PREFIX}lock-{os.geteuid()}").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def wait_until(
    true: Callable[[], bool], seconds: float, explain: Callable[[], str] = str, *, poll_seconds: float = 0.1
) -> None:
    """Look again and again, and fail when the time is over."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"nothing after {seconds} s: {explain()}")
        time.sleep(poll_seconds)


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
