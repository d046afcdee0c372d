"""The blend plan: which shards, in which exact proportions, by which tokenizer."""

from __future__ import annotations

from salamandra_data.blend_plan.builder import build_plan, reweighted
from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.blend_plan.plan import BlendPlan, BlendSource, ShardRef, TokenizerRef
from salamandra_data.blend_plan.temperature import temperature_factors
from salamandra_data.blend_plan.token_counts import TokenCounts, plan_of_counts
from salamandra_data.blend_plan.verification import verify

__all__ = [
    "BlendPlan",
    "BlendSource",
    "LanguageFactors",
    "ShardRef",
    "TokenCounts",
    "TokenizerRef",
    "build_plan",
    "plan_of_counts",
    "reweighted",
    "temperature_factors",
    "verify",
]
