"""The blend plan: which shards, in which exact proportions, by which tokenizer."""

from __future__ import annotations

from salamandra_data.blend_plan.builder import build_plan
from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.blend_plan.plan import BlendPlan, BlendSource, ShardRef, TokenizerRef

__all__ = ["BlendPlan", "BlendSource", "LanguageFactors", "ShardRef", "TokenizerRef", "build_plan"]
