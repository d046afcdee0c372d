"""Logging: a file for each rank, and the console for rank 0."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

LOGGER_NAME = "salamandra"
FORMAT = "%(asctime)s %(levelname).1s %(message)s"


def start_logging(path: Path, rank: int) -> logging.Logger:
    """Return the run's logger: every rank writes its own ``path``, rank 0 and all errors go to the console too."""
    logger = logging.getLogger(LOGGER_NAME)
    stop_logging(logger)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter(FORMAT))
    to_console = logging.StreamHandler(sys.stderr)
    to_console.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    to_console.setLevel(logging.INFO if rank == 0 else logging.ERROR)
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
