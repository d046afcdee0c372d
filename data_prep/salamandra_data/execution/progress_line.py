"""One line on stderr that says how far a long pass is, how fast, and when it will be done."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from salamandra_data.execution.worker_pool import Counters

_TERMINAL_SECONDS = 0.5
_LOG_SECONDS = 15.0


class ProgressLine:
    """Shows counters while the block runs: rewritten in place on a terminal, else a line now and then.

    Args:
        title: what is being done.
        counters: what to show.
        total_units: value of the third counter at the end, for percentage and remaining time.
        of_tasks: the third counter counts tasks, and the others are not used.
    """

    def __init__(self, title: str, counters: Counters, total_units: int, *, of_tasks: bool = False) -> None:
        self._title, self._counters, self._total_units = title, counters, total_units
        self._of_tasks = of_tasks
        self._stream = sys.stderr
        self._on_terminal = self._stream.isatty()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show_until_done, daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> ProgressLine:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        end = "\n" if kind is None or self._on_terminal else ""
        if end:
            self._stream.write(("\r\x1b[K" if self._on_terminal else "") + self.text() + end)
            self._stream.flush()

    def text(self) -> str:
        """The line as it is now."""
        documents, text_bytes, units = self._counters.values()
        seconds = max(time.monotonic() - self._started, 1e-3)
        share = min(units / self._total_units, 1.0) if self._total_units else 1.0
        parts = [f"{self._title} {share:6.1%}"]
        if self._of_tasks:
            parts.append(f"{units:,} of {self._total_units:,} tasks")
        else:
            parts += [
                f"{documents:,} documents",
                f"{text_bytes / 1e6 / seconds:,.1f} MB/s",
                f"{documents / seconds:,.0f} documents/s",
            ]
        if share >= 1.0 or self._done.is_set():
            parts.append(f"{_duration(seconds)} taken")
        elif units:
            parts.append(f"{_duration(seconds * (1 - share) / share)} to go")
        return "  ".join(parts)

    def _show_until_done(self) -> None:
        while not self._done.wait(_TERMINAL_SECONDS if self._on_terminal else _LOG_SECONDS):
            self._stream.write(f"\r\x1b[K{self.text()}" if self._on_terminal else f"{self.text()}\n")
            self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
