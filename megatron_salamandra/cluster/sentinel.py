"""Brings a job back into the queue whose supervisor went down with its host.

    python -m megatron_salamandra.cluster.sentinel JOB RESTARTS HOST SECONDS

With ``--no-kill`` a job outlives every node that fails, the one with the batch script too: SLURM takes that node out of
the job and lets the others wait until the time limit, with nobody there to start a round. So the supervisor has
sentinels on up to two other nodes, each a job step of its own, which look every SECONDS whether the supervisor's host
is still of the job. Where the node was set down but still answers, it reports that its batch script was killed, and the
job fails at once; then the sentinels' last moments, after SIGTERM, are enough to bring it back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from megatron_salamandra.cluster.slurm import JobNow, SlurmJob, is_lost, is_refused
from megatron_salamandra.cluster.slurm_command import SlurmError, answer

STEP_NAME = "salamandra-sentinel"
"""Name of its job step, by which it is told from the ranks'."""
_SENTINELS = 2
_KILLED = "0:9"
"""Exit code of a job whose batch script was killed, as on a node that is set down; a cancelled job has another."""
_AGAIN_SECONDS = 1.0


class Sentinels:
    """The sentinels of one supervisor.

    Args:
        look_seconds: between two looks.
    """

    def __init__(self, job: SlurmJob, look_seconds: float) -> None:
        self._job, self._look_seconds = job, look_seconds
        self._host = os.environ.get("SLURMD_NODENAME", job.nodes[0])
        self._steps: dict[str, subprocess.Popen[bytes]] = {}
        self._posted = 0.0

    def post(self) -> None:
        """Have sentinels on up to two of the hosts that answer; to be called before every round."""
        self._posted = time.monotonic()
        others = [host for host in self._answering() if host != self._host]
        wanted = dict.fromkeys([*others[-1:], *others[:1]])
        for host in [host for host, step in self._steps.items() if step.poll() is not None]:
            del self._steps[host]
        for host in list(wanted)[: max(0, _SENTINELS - len(self._steps))]:
            if host not in self._steps:
                self._steps[host] = self._start(host)

    def renew(self) -> None:
        """Post again those that ended, for rounds take weeks; to be called now and then."""
        ended = any(step.poll() is not None for step in self._steps.values())
        if ended and time.monotonic() > self._posted + self._look_seconds:
            self.post()

    def end(self) -> None:
        """Relieve them."""
        for step in self._steps.values():
            step.terminate()
        for step in self._steps.values():
            try:
                step.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                step.kill()
        self._steps.clear()

    def _answering(self) -> list[str]:
        """Hosts of the job that answer now; all where SLURM does not tell."""
        try:
            return [host for host, state in self._job.node_states().items() if not is_lost(state)]
        except SlurmError:
            return list(self._job.nodes)

    def _start(self, host: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *("srun", f"--job-name={STEP_NAME}", "--overlap", "--nodes=1", "--ntasks=1"),
                *("--ntasks-per-node=1", "--cpus-per-task=1", "--gres=none", f"--nodelist={host}"),
                *(sys.executable, "-m", "megatron_salamandra.cluster.sentinel"),
                *(self._job.name, str(self._job.restarts), self._host, str(self._look_seconds)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def watch(job: str, restarts: int, host: str, look_seconds: float) -> int:
    """Wait until the supervisor's host is lost, then requeue the job; returns when there is nothing left to watch.

    Each request follows a look that allows it, the second and later ones too.

    Returns:
        0; 1 if SLURM refuses to requeue the job.
    """
    # Blocked for good: requeueing sends it, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    watched = SlurmJob(job, restarts, (host,), 1)
    missed, ended, wait = 0, False, look_seconds
    while True:
        if signal.sigtimedwait((signal.SIGTERM,), wait) is not None and not ended:
            # What was seen before says nothing of why the signal came: somebody may have cancelled the job.
            missed, ended, wait = 0, True, _AGAIN_SECONDS
        try:
            fields = watched.fields()
            hosts = answer(["scontrol", "show", "hostnames", fields.get("NodeList", host)]).split()
        except SlurmError:
            continue
        lives = JobNow.from_fields(fields).lives or (ended and fields.get("ExitCode") == _KILLED)
        if not lives or int(fields.get("Restarts", "0")) != restarts or (ended and host in hosts):
            return 0
        missed = 0 if host in hosts else missed + 1
        if missed < (1 if ended else 2):  # in a row: a node may be between two states
            continue
        try:
            watched.requeue()
            return 0
        except SlurmError as error:
            # Else it may be done all the same: the next look tells, before anything is asked for again.
            if is_refused(error):
                return 1


if __name__ == "__main__":
    job, restarts, host, seconds = sys.argv[1:]
    sys.exit(watch(job, int(restarts), host, float(seconds)))
