"""Doing again what a network made fail."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from salamandra_data.errors import DataError

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5  # doubled each time: about 16 s in all

Result = TypeVar("Result")

# What comes back the same however often it is tried. All else is taken for a passing trouble, because the packages
# behind fsspec raise exceptions of their own for time-outs, resets and "slow down".
_LASTING = (
    FileNotFoundError,
    IsADirectoryError,
    PermissionError,
    ImportError,
    ValueError,  # DataError among them
    TypeError,
    NotImplementedError,
)


def with_retries(what: str, action: Callable[[], Result]) -> Result:
    """The result of ``action``, tried up to :data:`ATTEMPTS` times with growing, jittered waits.

    Args:
        what: for the message, such as a URL.
    Raises:
        DataError: the last attempt failed as well.
        FileNotFoundError: at once, as other errors that trying again does not mend.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except _LASTING:
            raise
        except Exception as error:
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"{what}: failed {ATTEMPTS} times, the last time with {type(error).__name__}: {error}\n"
                    "  check the network and the storage, then run the command again (a training run resumes)"
                ) from error
            # Jitter, so that a thousand ranks do not come back at the same moment.
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")
