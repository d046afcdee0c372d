"""One line on stderr that says how far a long pass is, how fast, and when it will be done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

_TERMINAL_SECONDS = 0.5
_LOG_SECONDS = 15.0


class ProgressLine:
    """Shows progress while the block runs: rewritten in place on a terminal, else a line now and then.

    The bars of rich and tqdm are made for terminals; most long passes here run in a batch job, whose log should hold
    one readable line every so often, from counters that other processes advance.

    Args:
        title: what is being done.
        done: how many units are done now; called from another thread.
        total: the units there are, for percentage and remaining time.
        details: seconds since the start -> what else to show, such as counts and rates.
    """

    def __init__(
        self,
        title: str,
        done: Callable[[], float],
        total: float,
        details: Callable[[float], Sequence[str]] = lambda seconds: (),
    ) -> None:
        self._title, self._done_units, self._total, self._details = title, done, total, details
        self._stream = sys.stderr
        self._on_terminal = self._stream.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_until_ended, daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> ProgressLine:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        end = "\n" if kind is None or self._on_terminal else ""
        if end:
            self._stream.write(("\r\x1b[K" if self._on_terminal else "") + self.text() + end)
            self._stream.flush()

    def text(self) -> str:
        """The line as it is now."""
        units = self._done_units()
        seconds = max(time.monotonic() - self._started, 1e-3)
        share = min(units / self._total, 1.0) if self._total else 1.0
        parts = [f"{self._title} {share:6.1%}", *self._details(seconds)]
        if share >= 1.0 or self._ended.is_set():
            parts.append(f"{duration_text(seconds)} taken")
        elif units:
            parts.append(f"{duration_text(seconds * (1 - share) / share)} to go")
        return "  ".join(parts)

    def _show_until_ended(self) -> None:
        while not self._ended.wait(_TERMINAL_SECONDS if self._on_terminal else _LOG_SECONDS):
            self._stream.write(f"\r\x1b[K{self.text()}" if self._on_terminal else f"{self.text()}\n")
            self._stream.flush()


def duration_text(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any: ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
