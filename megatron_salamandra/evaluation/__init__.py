"""Looking at what a model learned."""

from __future__ import annotations

from megatron_salamandra.evaluation.generation import Generation, check_request, generate_texts

__all__ = ["Generation", "check_request", "generate_texts"]
