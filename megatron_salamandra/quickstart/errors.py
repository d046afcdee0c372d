"""What can go wrong in the quick start beyond what its rooms raise."""

from __future__ import annotations


class QuickstartError(ValueError):
    """A stage failed; the message says which, where its log is, and how to go on."""
