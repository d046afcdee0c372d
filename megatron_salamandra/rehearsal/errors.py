"""What a rehearsal cannot go on with, or found to be wrong."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE


class RehearsalError(UserError):
    """A job would fail; names the ranks, where they are, and what does not fit."""

    exit_code = EXIT_USAGE
