"""Doing again what a network made fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from tenacity import RetryCallState

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


def with_retries(what: str, action: Callable[[], Result]) -> Result:
    """The result of ``action``, tried up to :data:`ATTEMPTS` times with growing waits.

    The waits are random, so that a thousand ranks do not come back at the same moment.

    Args:
        what: for the message, such as a URL.
    Raises:
        DataError: the last attempt failed as well.
        FileNotFoundError: at once, as other errors that trying again does not mend.
    """
    # Here, because training imports this room and reads local files as a rule.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def give_up(state: RetryCallState) -> Result:
        assert state.outcome is not None
        error = state.outcome.exception()
        raise DataError(
            f"{what}: failed {ATTEMPTS} times, the last time with {type(error).__name__}: {error}\n"
            "  check the network and the storage, then run the command again (a training run resumes)"
        ) from error

    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_SECONDS),
        retry=retry_if_exception(
            lambda error: isinstance(error, Exception) and not isinstance(error, _LASTING)
        ),
        retry_error_callback=give_up,
    )
    return attempts(action)
