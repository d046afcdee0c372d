"""A child process that may take so long and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence


def run_within(
    command: Sequence[str], seconds: float | None, *, capture: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ``command``. What it prints goes where ours goes, or with ``capture`` into the result.

    The child and whatever it starts are killed together when the time is over. None: it may take for ever.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``seconds``.
    """
    # A process group, not a session: whoever ends this session ends the child with it.
    output = subprocess.PIPE if capture else None
    child = subprocess.Popen(command, stdout=output, text=True, process_group=0)
    try:
        out, _ = child.communicate(timeout=seconds)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    return subprocess.CompletedProcess(list(command), child.returncode, out)
