"""The blend plan: which shards, in which exact proportions, by which tokenizer."""

from __future__ import annotations

from salamandra_data.blend_plan.builder import NamedSource, build_plan, reweighted
from salamandra_data.blend_plan.factors import LanguageFactors, load_exact_yaml, parse_factor
from salamandra_data.blend_plan.plan import KINDS, TEXT, BlendPlan, BlendSource, ShardRef, TokenizerRef
from salamandra_data.blend_plan.plan_file import factor_text
from salamandra_data.blend_plan.report import blend_table, blend_warnings, factor_warnings, pass_tokens
from salamandra_data.blend_plan.temperature import temperature_factors
from salamandra_data.blend_plan.token_counts import TokenCounts, plan_of_counts
from salamandra_data.blend_plan.verification import verify

__all__ = [
    "KINDS",
    "TEXT",
    "BlendPlan",
    "BlendSource",
    "LanguageFactors",
    "NamedSource",
    "ShardRef",
    "TokenCounts",
    "TokenizerRef",
    "blend_table",
    "blend_warnings",
    "build_plan",
    "factor_text",
    "factor_warnings",
    "load_exact_yaml",
    "parse_factor",
    "pass_tokens",
    "plan_of_counts",
    "reweighted",
    "temperature_factors",
    "verify",
]
