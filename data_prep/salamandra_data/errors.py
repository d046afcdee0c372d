"""The exception that data preparation raises for something a user can put right, and its warning."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import Notice, UserError


class DataError(UserError):
    """Bad input, a damaged file or an impossible request.

    The message names the file, what is wrong with it, and what would help.
    """


class DataWarning(Notice):
    """What a user should know, although the command goes on; the command line shows it on stderr."""
