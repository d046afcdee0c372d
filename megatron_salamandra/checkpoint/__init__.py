"""Saving and loading checkpoints: atomic, kept and pruned, loadable in another layout.

What a checkpoint directory holds, and how it is found and verified without torch, is in ``run_directory``.
"""

from __future__ import annotations

from megatron_salamandra.checkpoint.reader import load_checkpoint
from megatron_salamandra.checkpoint.writer import CheckpointWriter, SaveOutcome

__all__ = ["CheckpointWriter", "SaveOutcome", "load_checkpoint"]
