"""``salamandra save``: ask a run to save and go on."""

from __future__ import annotations

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli._request import register_request


def register(subparsers: Subparsers) -> None:
    """Add ``save`` to the command line."""
    register_request(subparsers, "save", "ask a run to save and go on", "save after its next step and go on")
