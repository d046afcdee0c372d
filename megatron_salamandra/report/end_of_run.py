"""The report at the end of a run: it may neither fail the run nor hold it up."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

END_SECONDS = 20.0
"""How long the end of a run waits for its report; a run of a million steps takes about half of it."""


def write_report_in_time(run: Path, seconds: float = END_SECONDS) -> None:
    """Write the report of a run that ends. Never raises; what goes wrong is one line of the log.

    Args:
        seconds: after which it is left out.
    """
    problems: list[str] = []

    def write() -> None:
        try:
            from megatron_salamandra.report.writing import write_report

            write_report(run)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    # A thread of its own, because a file system that hangs cannot be interrupted; it ends with the process.
    thread = threading.Thread(target=write, name="report", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        problems.append(f"it took more than {seconds:.0f} s")
    for problem in problems:
        print(
            f"the report of {run} is left out: {problem}\n  salamandra report {run} writes it",
            file=sys.stderr,
        )
