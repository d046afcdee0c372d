"""Saving and loading checkpoints: atomic, kept and pruned, proved before they are loaded, in this layout or another.

What a checkpoint directory holds, and how it is found and verified without torch, is in ``run_directory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.checkpoint.metadata import load_metadata, weights_only

if TYPE_CHECKING:
    from megatron_salamandra.checkpoint.integrity import check_together, newest_intact
    from megatron_salamandra.checkpoint.reader import load_checkpoint
    from megatron_salamandra.checkpoint.writer import CheckpointWriter, SaveOutcome

__all__ = [
    "CheckpointWriter",
    "SaveOutcome",
    "check_together",
    "load_checkpoint",
    "load_metadata",
    "newest_intact",
    "weights_only",
]


def __getattr__(name: str) -> Any:
    """What needs Megatron-Core or a process group is imported when asked for: an export needs neither."""
    if name == "load_checkpoint":
        from megatron_salamandra.checkpoint import reader

        return reader.load_checkpoint
    if name in ("CheckpointWriter", "SaveOutcome"):
        from megatron_salamandra.checkpoint import writer

        return getattr(writer, name)
    if name in ("check_together", "newest_intact"):
        from megatron_salamandra.checkpoint import integrity

        return getattr(integrity, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
