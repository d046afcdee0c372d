"""``salamandra stop``: ask a run to save and end."""

from __future__ import annotations

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli._request import register_request


def register(subparsers: Subparsers) -> None:
    """Add ``stop`` to the command line."""
    effect = "finish its step, save and end, and is not started again by itself"
    register_request(subparsers, "stop", "ask a run to save and end", effect)
