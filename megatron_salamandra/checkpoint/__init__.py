"""Sharded checkpoints: atomic, verified, kept and pruned, loadable in another layout.

Public names: :class:`CheckpointWriter`, :func:`load_checkpoint`, :func:`latest_checkpoint`,
:func:`resolve_checkpoint`, :func:`verify_checkpoint`, :class:`CheckpointError`.
What a directory holds is described in ``directory.py``, which needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.checkpoint.directory import (
    CheckpointError,
    complete_checkpoints,
    latest_checkpoint,
    read_state,
    resolve_checkpoint,
)
from megatron_salamandra.checkpoint.manifest import verify_checkpoint

if TYPE_CHECKING:
    from megatron_salamandra.checkpoint.reader import load_checkpoint
    from megatron_salamandra.checkpoint.writer import CheckpointWriter, SaveOutcome

__all__ = [
    "CheckpointError",
    "CheckpointWriter",
    "SaveOutcome",
    "complete_checkpoints",
    "latest_checkpoint",
    "load_checkpoint",
    "read_state",
    "resolve_checkpoint",
    "verify_checkpoint",
]


def __getattr__(name: str) -> Any:
    # Listing and verifying checkpoints must not import torch; saving and loading must.
    if name in ("CheckpointWriter", "SaveOutcome"):
        from megatron_salamandra.checkpoint import writer

        return getattr(writer, name)
    if name == "load_checkpoint":
        from megatron_salamandra.checkpoint.reader import load_checkpoint

        return load_checkpoint
    raise AttributeError(name)
