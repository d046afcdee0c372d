"""The one exception that data preparation raises for something a user can put right."""

from __future__ import annotations


class DataError(ValueError):
    """Bad input, a damaged file or an impossible request.

    The message names the file, what is wrong with it, and what would help.
    """
