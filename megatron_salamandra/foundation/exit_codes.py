"""How a command or a run ends: exit codes, and the signals that ask a run to save and leave. Never imports torch."""

from __future__ import annotations

import signal

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
"""Bad usage or configuration; nothing was begun."""
EXIT_STOPPED = 75
"""Stopped early with everything saved: the scheduler may start the same command again."""
EXIT_HUNG = 76
"""A rank stayed where it was for too long and ended itself; the run goes on from its last checkpoint."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Preemption, and a time limit ahead."""
