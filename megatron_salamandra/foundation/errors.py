"""What a user can put right: the one root of such errors, and of warnings."""

from __future__ import annotations

from megatron_salamandra.foundation.credentials import without_credentials
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE


class UserError(ValueError):
    """Bad input, a damaged file or an impossible request: told in full, without a traceback.

    The message names the file, key or rank, the value, what is wrong with it and, on an indented second line, what
    would help. Each room has a subclass of its own, so that a caller may tell them apart. Credentials in URLs are taken
    out of it, wherever it is shown or kept.
    """

    exit_code: int = EXIT_FAILURE
    """What a command ends with when this error ends it."""
    of_one_rank: bool = False
    """True if the ranks of a run do not all find it: the one that does says so, and on which host it is."""
    said: bool = False
    """True if it was said already, by this rank or another one, so that nobody need say it again."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_credentials(arg) if isinstance(arg, str) else arg for arg in args))


class Notice(UserWarning):
    """What a user should know although the command goes on; the command line shows it on stderr as one line."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_credentials(arg) if isinstance(arg, str) else arg for arg in args))
