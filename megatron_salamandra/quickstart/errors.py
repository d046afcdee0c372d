"""What can go wrong in the quick start beyond what its rooms raise."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError


class QuickstartError(UserError):
    """A stage failed; the message says which, where its log is, and how to go on."""
