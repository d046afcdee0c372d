"""Looking at what a model learned."""

from __future__ import annotations

from megatron_salamandra.evaluation.generation import Generation, generate_texts

__all__ = ["Generation", "generate_texts"]
