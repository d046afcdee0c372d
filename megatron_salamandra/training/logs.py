"""Logging: a file for each rank, and the console for rank 0."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from pathlib import Path

LOGGER_NAME = "salamandra"
FORMAT = "%(asctime)s %(levelname).1s %(message)s"
FILE_ONLY = {"file_only": True}
"""``extra`` of what a rank notes in its log and does not say on the console."""


class RankLog(logging.FileHandler):
    """A rank's log. That it cannot be written is told once on stderr, and never ends a run."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by ``logging`` for what a write raised; the default prints a traceback each time."""
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        """Close the file, although what it still holds back may not fit on the disk."""
        with contextlib.suppress(OSError):
            super().close()


def start_logging(path: Path, rank: int) -> logging.Logger:
    """Return the run's logger: every rank writes its own ``path``, rank 0 and all errors go to the console too."""
    logger = logging.getLogger(LOGGER_NAME)
    stop_logging(logger)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = RankLog(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter(FORMAT))
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    to_console.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    to_console.addFilter(lambda record: not getattr(record, "file_only", False))
    logger.addHandler(to_file)
    logger.addHandler(to_console)
    if rank != 0:
        # Libraries warn once per rank; once per run is enough.
        warnings.simplefilter("ignore")
    return logger


def stop_logging(logger: logging.Logger) -> None:
    """Close and remove all handlers of the run's logger."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
