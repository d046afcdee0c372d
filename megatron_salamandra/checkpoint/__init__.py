"""Saving and loading checkpoints: atomic, kept and pruned, proved before they are loaded, in this layout or another.

What a checkpoint directory holds, and how it is found and verified without torch, is in ``run_directory``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megatron_salamandra.checkpoint.comparison import Comparison, compare_checkpoints
    from megatron_salamandra.checkpoint.integrity import check_together, newest_intact
    from megatron_salamandra.checkpoint.local_copies import LocalCopies
    from megatron_salamandra.checkpoint.metadata import load_metadata, weights_only
    from megatron_salamandra.checkpoint.reader import load_checkpoint
    from megatron_salamandra.checkpoint.reshard import reshard_checkpoint
    from megatron_salamandra.checkpoint.retention import prune
    from megatron_salamandra.checkpoint.save_size import bytes_saved_by_rank
    from megatron_salamandra.checkpoint.stored_tensors import StoredTensors
    from megatron_salamandra.checkpoint.writer import CheckpointWriter, SaveOutcome

__all__ = [
    "CheckpointWriter",
    "Comparison",
    "LocalCopies",
    "SaveOutcome",
    "StoredTensors",
    "bytes_saved_by_rank",
    "check_together",
    "compare_checkpoints",
    "load_checkpoint",
    "load_metadata",
    "newest_intact",
    "prune",
    "reshard_checkpoint",
    "weights_only",
]

_MODULES = {
    "CheckpointWriter": "writer",
    "Comparison": "comparison",
    "LocalCopies": "local_copies",
    "SaveOutcome": "writer",
    "StoredTensors": "stored_tensors",
    "bytes_saved_by_rank": "save_size",
    "check_together": "integrity",
    "compare_checkpoints": "comparison",
    "load_checkpoint": "reader",
    "load_metadata": "metadata",
    "newest_intact": "integrity",
    "prune": "retention",
    "reshard_checkpoint": "reshard",
    "weights_only": "metadata",
}


def __getattr__(name: str) -> Any:
    """What needs torch, Megatron-Core or a process group is imported when asked for: pruning needs none of them."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
