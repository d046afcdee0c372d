"""Starting the ranks of a run on this machine, without a cluster's launcher.

``torchrun`` works as well, but it turns every worker's exit code into 1 and dies of SIGUSR1, so
it can neither tell "stopped early, start me again" (75) from a failure nor pass on the signal
that asks for a checkpoint. This launcher does both. It starts no elastic agent: a run that
fails is started again by whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from megatron_salamandra.cluster import RoundWatch, Watch, tell_hang
from megatron_salamandra.foundation.exit_codes import EXIT_HUNG, EXIT_STOPPED
from megatron_salamandra.foundation.launch_environment import local_environment
from megatron_salamandra.foundation.parents import bound_command
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.foundation.world import free_port
from megatron_salamandra.hangs import Hang
from megatron_salamandra.run_directory import ROUND_DIR, RunDirectory

if TYPE_CHECKING:
    from megatron_salamandra.config import RunConfig

FORWARDED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    # Ctrl-C and a closed terminal ask the ranks to save and leave, like every other request to stop.
    signal.SIGINT: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
"""What this process receives, and what it sends to the ranks for it."""
GRACE_SECONDS = 60.0
"""How long other ranks may take to save and end once one has failed, before they are killed."""
HUNG_SECONDS = 5.0
"""The same if it hung: those that can have written their stacks and end by themselves."""
POLL_SECONDS = 0.05


def default_ranks(config: RunConfig) -> int:
    """One rank per GPU; without GPUs one replica of the model.

    Imports torch, because only torch knows which devices it can drive.
    """
    import torch

    model_ranks = config.parallel.tensor * config.parallel.pipeline
    if config.platform == "host" or not torch.cuda.is_available():
        return model_ranks
    return torch.cuda.device_count()


class _Ranks:
    """The processes of a run, which hear what this process hears, and end when it ends."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self.asked: list[signal.Signals] = []
        """What was passed on, in order."""

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # A session of its own, so that Ctrl-C reaches this process alone, and once; bound, because then neither does
        # the hang-up of a terminal reach it, nor would it notice that this process was killed.
        self._processes.append(
            subprocess.Popen(
                bound_command(command, signal.SIGTERM), env=dict(environment), start_new_session=True
            )
        )

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Handler of signals: send the ranks what this one means for them."""
        self.asked.append(FORWARDED[signal.Signals(number)])
        self._send(self.asked[-1])

    def repeat(self) -> None:
        """Send what came before all ranks were started; those that have it already do not mind."""
        for number in self.asked:
            self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self, watch: RoundWatch | None) -> tuple[int, Hang | None]:
        """Wait for all; the exit code of the whole, and who held up the others if they hung."""
        hang: Hang | None = None
        first_failure = 0
        deadline: float | None = None
        running = list(self._processes)
        while running:
            for process in list(running):
                code = process.poll()
                if code is None:
                    continue
                running.remove(process)
                if code and first_failure in (0, EXIT_STOPPED):
                    first_failure = self._meaning(code)
                    hung = first_failure == EXIT_HUNG
                    deadline = time.monotonic() + (HUNG_SECONDS if hung else GRACE_SECONDS)
                    if first_failure not in (
                        EXIT_STOPPED,
                        EXIT_HUNG,
                    ):  # those that stop together need no telling
                        for other in running:
                            other.send_signal(signal.SIGTERM)
            if watch is not None and first_failure == 0 and running and watch.is_still():
                hang, first_failure, deadline = watch.who_is_late(), EXIT_HUNG, time.monotonic()
            if deadline is not None and time.monotonic() > deadline:
                # The others wait for a rank that is gone.
                for process in running:
                    process.kill()
            time.sleep(POLL_SECONDS)
        if watch is not None and first_failure == EXIT_HUNG and hang is None:
            hang = watch.found_by_ranks()
        return first_failure, hang

    def _meaning(self, code: int) -> int:
        if code < 0 and -code in self.asked:
            return EXIT_STOPPED  # it had not come to its first line, from which on it catches the signal
        return code if code > 0 else 128 - code

    def end(self) -> None:
        """Kill what is left, with what it has started: a checkpoint's writers must not outlive their rank."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_ranks(
    module: str,
    arguments: Sequence[str],
    ranks: int,
    signals: SignalWatch | None = None,
    config: RunConfig | None = None,
) -> int:
    """Run ``python -m module arguments`` once per rank and return the exit code of the whole.

    Args:
        module: a module that reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
        arguments: its command line.
        ranks: number of processes.
        signals: the caller's watch, which hands over to this function.
        config: of the run, whose heartbeat is watched then.
    Returns:
        0 if all ranks returned 0; otherwise the code of the rank that failed first, or 75 if every
        rank that did not return 0 returned that. A rank that died of a signal counts as 128 plus
        its number. If ranks hang, all are ended, the late ones are named on stderr and in the run's events, and
        the code is 76. Requests to stop this process go to every rank, and if it is killed they are asked to stop.
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    environment = local_environment({**address, **size})
    command = [sys.executable, "-P", "-u", "-m", module, *arguments]
    directory = None if config is None or config.run_dir is None else RunDirectory(config.run_dir.absolute())
    watch: RoundWatch | None = None
    if directory is not None and config is not None and ROUND_DIR not in environment:
        records = directory.round(f"local-{address['MASTER_PORT']}")
        environment[ROUND_DIR] = str(records)
        watch = RoundWatch(directory, records, Watch.later_than(config.hangs))
    processes = _Ranks()
    # What nohup and the like ignore stays ignored.
    heard = [
        number
        for number in FORWARDED
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, processes.pass_on) for number in heard}
    try:
        if signals is not None:
            signals.begin()
            if signals.received:
                return EXIT_STOPPED
        for rank in range(ranks):
            processes.start(command, environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        processes.repeat()
        code, hang = processes.wait(watch)
        if directory is not None and watch is not None:
            if hang is not None:
                tell_hang(directory, hang)
            else:
                shutil.rmtree(watch.files.directory, ignore_errors=True)
        return code
    finally:
        processes.end()
        for number, handler in previous.items():
            signal.signal(number, handler)
