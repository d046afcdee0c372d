"""The one place where a save touches the disk: what fails is tried again for a while, then told with its place.

Disks of clusters refuse for seconds (a server that fails over, a quota that somebody makes room for), and a save runs
beside training, so trying again costs nothing but time. Tests put their faults here: every operation passes
:meth:`Disk.act`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from megatron_salamandra.foundation.atomic_files import WriteError

LOGGER = logging.getLogger("salamandra")
Result = TypeVar("Result")
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0


class Stage(StrEnum):
    """What a save does on the disk, in this order."""

    DIRECTORY = "making the directory"
    LOCAL = "writing to the local disk"
    TENSORS = "writing tensors"
    UPLOAD = "uploading tensors"
    METADATA = "writing metadata"
    STATE = "writing the state"
    MANIFEST = "writing the manifest"
    PUBLISH = "giving it its name"


class SaveError(Exception):
    """A save cannot go on; the message says where and why."""


class Disk:
    """Does what a save has to do, again if the system refuses."""

    def __init__(self, retry_seconds: float) -> None:
        """Nothing is done yet.

        Args:
            retry_seconds: for how long an operation that fails is tried again, the first time after 0.2 s, then after
                twice as long each time, at most 15 s.
        """
        self._retry_seconds = retry_seconds
        self.retries = 0
        """Attempts that failed and were repeated."""

    def attempt(self, stage: Stage, path: Path, action: Callable[[], Result]) -> Result:
        """Return what ``action`` returns.

        Args:
            action: can be done again after it has failed.
        Raises:
            SaveError: the system refuses still.
        """
        until = time.monotonic() + self._retry_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return self.act(stage, path, action)
            except (OSError, WriteError) as error:
                if time.monotonic() + pause > until:
                    raise SaveError(f"{stage} failed at {path}: {reason(error)}") from error
                LOGGER.warning("%s failed at %s: %s; again in %.1f s", stage, path, reason(error), pause)
            self.retries += 1
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def act(self, stage: Stage, path: Path, action: Callable[[], Result]) -> Result:
        """One attempt; where tests have disks fail."""
        return action()


def reason(error: Exception) -> str:
    """Why the system refused, in its words."""
    cause = error.__cause__ if isinstance(error, WriteError) else error
    return str(getattr(cause, "strerror", None) or error)
