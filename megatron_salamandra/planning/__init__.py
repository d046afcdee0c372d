"""What a configuration costs, by arithmetic alone: parameters, FLOPs, memory, layout. Never imports torch."""

from __future__ import annotations

from megatron_salamandra.planning.environment import (
    EnvironmentReport,
    inspect_environment,
    render_environment,
)
from megatron_salamandra.planning.flops import FlopCount, head_in_layers, training_flops_per_token
from megatron_salamandra.planning.memory import RankMemory, memory_per_rank
from megatron_salamandra.planning.parameters import Matrix, ParameterCount, count_parameters
from megatron_salamandra.planning.pipeline_balance import (
    StageLoad,
    current_stages,
    stage_loads,
    suggest_pipeline_layout,
)
from megatron_salamandra.planning.plan import Plan, make_plan
from megatron_salamandra.planning.plan_table import render_plan
from megatron_salamandra.planning.verdict import Verdict, verdict_of

__all__ = [
    "EnvironmentReport",
    "FlopCount",
    "Matrix",
    "ParameterCount",
    "Plan",
    "RankMemory",
    "StageLoad",
    "Verdict",
    "count_parameters",
    "current_stages",
    "head_in_layers",
    "inspect_environment",
    "make_plan",
    "memory_per_rank",
    "render_environment",
    "render_plan",
    "stage_loads",
    "suggest_pipeline_layout",
    "training_flops_per_token",
    "verdict_of",
]
