"""Doing again what a network or a shared file system made fail."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from megatron_salamandra.foundation.credentials import without_credentials
from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from tenacity import RetryCallState

LOGGER = logging.getLogger("salamandra")

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 1.0
"""At most, before the second attempt; doubled each time: 31 s in all at most, half of that on average."""

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


_PASSING_ERRORS = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)
"""Of local reads: a shared file system that is restarted, or moves to another server. All else is lasting."""


def passes_locally(error: BaseException) -> bool:
    """Whether a read of a local file that failed may work when it is tried again."""
    return isinstance(error, OSError) and error.errno in _PASSING_ERRORS


def passes_remotely(error: BaseException) -> bool:
    """The same of an object in a store."""
    return isinstance(error, Exception) and not isinstance(error, _LASTING)


def with_retries(
    what: str, action: Callable[[], Result], passes: Callable[[BaseException], bool] = passes_remotely
) -> Result:
    """The result of ``action``, tried up to :data:`ATTEMPTS` times with growing waits; each retry is logged.

    The waits are random, so that a thousand ranks do not come back at the same moment.

    Args:
        what: for the messages, such as a URL.
        passes: which errors are worth another attempt.
    Raises:
        DataError: the last attempt failed as well.
        FileNotFoundError: at once, as other errors that trying again does not mend.
    """
    try:
        return action()
    except BaseException as error:
        if not passes(error):
            raise
        first = [error]
    # Here, because training imports this room, and most reads succeed.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def attempt() -> Result:
        if first:
            raise first.pop()
        return action()

    def give_up(state: RetryCallState) -> Result:
        assert state.outcome is not None
        error = state.outcome.exception()
        raise DataError(
            f"{what} failed {ATTEMPTS} times, the last time with {type(error).__name__}: {error}\n"
            "  check the network and the storage, then run the command again (a training run resumes)"
        ) from error

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        LOGGER.warning(
            "%s failed (%s: %s); attempt %d of %d follows in %.1f s",
            without_credentials(what),
            type(error).__name__,
            without_credentials(str(error)),
            state.attempt_number + 1,
            ATTEMPTS,
            state.upcoming_sleep,
        )

    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS),
        retry=retry_if_exception(passes),
        before_sleep=tell,
        retry_error_callback=give_up,
    )
    return attempts(attempt)
