"""What the planner expected of a run, beside what was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from megatron_salamandra.config import RunConfig
from megatron_salamandra.planning import make_plan
from megatron_salamandra.report.step_records import StepRecords

_RANKS = re.compile(r"\((\d+) ranks\)")


@dataclass(frozen=True)
class Comparison:
    """One quantity.

    Attributes:
        planned, measured: in ``unit``; None where it was not planned, or not measured.
        note: what a reader must know to compare the two.
    """

    name: str
    planned: float | None
    measured: float | None
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over planned."""
        return self.measured / self.planned if self.measured is not None and self.planned else None


def ranks_of(environment: dict[str, Any]) -> int | None:
    """Number of ranks of the latest start; None if that is not recorded."""
    found = _RANKS.search(str(environment.get("layout", "")))
    return int(found[1]) if found and int(found[1]) else None


def plan_against_reality(config: RunConfig, ranks: int | None, steps: StepRecords) -> list[Comparison]:
    """Every quantity that the planner works out and a run can show.

    Args:
        ranks: of the latest start; one replica of the model if not known.
    Raises:
        ConfigError: the configuration cannot be laid out on so many ranks.
    """
    plan = make_plan(config, ranks)
    values = plan.to_dict()
    memory = steps.curve("peak_memory_bytes")
    flops = steps.curve("flops")
    mfu = steps.curve("mfu")
    flops_per_token = float(values["flops_per_token"])
    largest = max(rank.total_bytes for rank in plan.memory)
    per_token = None
    rate = steps.curve("tokens_per_second")
    if flops.spans and rate.spans and ranks:
        per_token = flops.mean * ranks / rate.mean
    return [
        Comparison("steps", float(values["steps"]), float(steps.last_step), "steps"),
        Comparison(
            "tokens", float(values["tokens"]), None if steps.tokens is None else float(steps.tokens), "tokens"
        ),
        Comparison("parameters", float(values["parameters"]), None, "parameters", "counted from the shapes"),
        Comparison(
            "model FLOPs per token",
            flops_per_token,
            per_token,
            "FLOP",
            "measured: mean rate of a rank, times ranks, over tokens per second"
            + ("; planned for the phase that needs the most memory" if plan.phases else ""),
        ),
        Comparison(
            "model FLOPs of the run",
            float(values["flops"]),
            None if steps.tokens is None else steps.tokens * flops_per_token,
            "FLOP",
            "so far: trained tokens times FLOPs per token",
        ),
        Comparison("model FLOP/s of a rank", None, flops.mean if flops.spans else None, "FLOP/s"),
        Comparison("model FLOPs utilisation (MFU)", None, mfu.mean if mfu.spans else None, ""),
        Comparison(
            "memory of the fullest rank",
            float(largest),
            memory.high if memory.spans else None,
            "bytes",
            "measured: peak of rank 0, on the CPU of its whole process; planned: without the allocator's slack, "
            "buffers of communication and the context of the device",
        ),
    ]
