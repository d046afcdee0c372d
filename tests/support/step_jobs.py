"""Jobs for the rank pool that watch what the training thread does in its steps."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rank_jobs import SMALL_CONFIG

_FILE_EVENTS = ("open", "os.", "shutil.", "tempfile.")
_CALLS = ("syscr", "syscw")


def _calls() -> dict[str, int]:
    """Reads and writes that the kernel has counted of this thread."""
    lines = Path("/proc/thread-self/io").read_text().splitlines()
    counted = dict(line.split(": ") for line in lines)
    return {name: int(counted[name]) for name in _CALLS}


def files_touched_in_steps(overrides: Sequence[str], first: int, last: int) -> dict[str, Any]:
    """Train, and tell what the training thread asked of the file system from the end of one step to that of another.

    Returns:
        ``opened``: paths and other arguments of what the interpreter reported; ``calls``: reads and writes that the
        kernel counted beyond those of the counting itself; ``code``: exit code of the run.
    """
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, StepReport, Trainer, TrainerParts

    thread = threading.get_ident()
    opened: list[str] = []
    watching = False
    counts: list[dict[str, int]] = []

    def heed(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and threading.get_ident() == thread and event.startswith(_FILE_EVENTS):
            opened.append(f"{event} {arguments[:1]}")

    class Watches(Callback):
        def after_step(self, report: StepReport) -> None:
            nonlocal watching
            if report.step == first:
                counts.extend((_calls(), _calls()))
                watching = True
            if report.step == last:
                watching = False
                counts.append(_calls())

    sys.addaudithook(heed)
    parts = TrainerParts(callbacks=[Watches()])
    code = main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))
    before, after_counting, end = counts
    return {
        "code": code,
        "opened": opened,
        "calls": {
            name: (end[name] - after_counting[name]) - (after_counting[name] - before[name])
            for name in _CALLS
        },
    }
