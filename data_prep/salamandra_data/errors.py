"""The one exception that data preparation raises for something a user can put right, and the one warning."""

from __future__ import annotations


class DataError(ValueError):
    """Bad input, a damaged file or an impossible request.

    The message names the file, what is wrong with it, and what would help.
    """


class DataWarning(UserWarning):
    """What a user should know, although the command goes on; the command line shows it on stderr."""
