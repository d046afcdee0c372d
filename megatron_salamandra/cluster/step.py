"""The srun of one round: its start, its messages, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from megatron_salamandra.cluster.rounds import RankFailure
from megatron_salamandra.cluster.slurm import ended_tasks

_ERRORS_KEPT = 200
_END_SECONDS = 20.0
_NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|[Cc]onnect(ion)? (failure|refused)|Zero Bytes|No route to host"
    r"|[Tt]imed out(?! waiting for job step)"
)


def srun_command(hosts: Sequence[str], tasks_per_node: int, options: Sequence[str]) -> list[str]:
    """``srun`` for all ranks of a round; what they run follows on it."""
    return [
        "srun",
        "--label",
        "--unbuffered",
        "--kill-on-bad-exit=1",
        # The step of an earlier round may not be over for SLURM: a host that lost its power never says so.
        "--overlap",
        f"--nodes={len(hosts)}",
        f"--ntasks={len(hosts) * tasks_per_node}",
        f"--ntasks-per-node={tasks_per_node}",
        f"--nodelist={','.join(hosts)}",
        *options,
    ]


class Step:
    """All ranks of one round, as one job step.

    Args:
        command: ``srun`` with its options and what it starts.
        environment: added to this process's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors: list[str] = []
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.end()
        self._reader.join(timeout=5.0)

    def send(self, number: signal.Signals) -> None:
        """To all ranks: srun hands it on."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self) -> None:
        """End all ranks that srun reaches, and srun by force where need be."""
        self.send(signal.SIGTERM)
        try:
            self.process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def code(self) -> int | None:
        """Of srun itself, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def slurm_did_not_answer(self) -> bool:
        """Whether srun failed because the controller could not be reached."""
        return bool(self.code) and any(
            "srun: error" in line and _NO_ANSWER.search(line) for line in self._errors
        )

    def first_failure(self) -> RankFailure | None:
        """The first task that srun says ended badly: one that was killed leaves no report of its own."""
        for host, tasks, how in ended_tasks("".join(self._errors)):
            first = re.match(r"\[?(\d+)", tasks)
            code = re.search(r"exit code (\d+)", how)
            rank = int(first[1]) if first else -1
            killed = 128 + (signal.SIGUSR1 if "User defined signal 1" in how else signal.SIGKILL)
            return RankFailure(rank, host, int(code[1]) if code else killed, how)
        return None

    def last_words(self) -> str:
        """The last line that srun said; empty if it said nothing."""
        return self._errors[-1].strip() if self._errors else ""

    def _pass_on(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            self._errors.append(line)
            del self._errors[:-_ERRORS_KEPT]
