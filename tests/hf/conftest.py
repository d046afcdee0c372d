"""Small models, weights and checkpoints."""

from __future__ import annotations

from small_checkpoints import random_weights, small_config, tokenizer_model, write_checkpoint

__all__ = ["random_weights", "small_config", "tokenizer_model", "write_checkpoint"]
