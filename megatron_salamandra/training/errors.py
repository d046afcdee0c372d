"""The error of training itself."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError


class TrainingError(UserError):
    """Training cannot go on, as all ranks found together; the message says at which step and what to do."""
