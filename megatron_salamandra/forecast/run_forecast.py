"""What a run takes on a cluster: step time, days, GPU-hours, energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron_salamandra.config import Layout, RunConfig
from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.of_config import workload_of
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.schedule import Pass, pipeline_passes
from megatron_salamandra.forecast.step_time import StepSeconds, stage_timing, step_seconds
from megatron_salamandra.forecast.workload import Workload
from megatron_salamandra.planning import count_parameters

_DAY = 86_400.0
_REPLAYED_ROUNDS = 3
"""Rounds of the pipeline that a replay shows."""


@dataclass(frozen=True)
class PhaseForecast:
    """One phase of a run, or a whole run without phases."""

    name: str
    steps: int
    work: Workload
    step: StepSeconds

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs, while steps run."""
        return self.work.tokens_per_step / self.step.total

    @property
    def seconds(self) -> float:
        """All steps; no starts, saves, validation or repeated steps."""
        return self.steps * self.step.total


@dataclass(frozen=True)
class RunForecast:
    """A run on so many GPUs of one machine.

    Attributes:
        checkpoint_bytes: one checkpoint: weights, fp32 masters and moments.
    """

    machine: Machine
    layout: Layout
    phases: tuple[PhaseForecast, ...]
    checkpoint_bytes: int

    @property
    def gpus(self) -> int:
        """Ranks."""
        return self.layout.world_size

    @property
    def longest(self) -> PhaseForecast:
        """The phase that takes most of the time."""
        return max(self.phases, key=lambda phase: phase.seconds)

    @property
    def days(self) -> float:
        """Of steps alone."""
        return sum(phase.seconds for phase in self.phases) / _DAY

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs."""
        return self.days * 24 * self.gpus

    @property
    def megawatt_hours(self) -> float | None:
        """GPUs at their rated power: an upper estimate of theirs, without hosts, network, storage and cooling."""
        return None if self.machine.watts is None else self.gpu_hours * self.machine.watts / 1e6

    @property
    def price(self) -> float | None:
        """In the machine's currency."""
        price = self.machine.gpu_hour_price
        return None if price is None else self.gpu_hours * price

    def mfu(self, phase: PhaseForecast) -> float:
        """Model FLOPs over the dense bf16 peak; causal attention counts half, as ``salamandra plan`` does."""
        per_token = phase.work.shape.flops_per_token(phase.work.sequence)
        return phase.tokens_per_second * per_token / self.gpus / (self.machine.bf16_teraflops * 1e12)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "gpu": self.machine.gpu,
            "gpus": self.gpus,
            "layout": self.layout.describe(),
            "phases": [
                {
                    "name": phase.name,
                    "steps": phase.steps,
                    "step_seconds": phase.step.total,
                    "step_parts": phase.step.parts(),
                    "tokens_per_second": phase.tokens_per_second,
                    "tokens_per_second_per_gpu": phase.tokens_per_second / self.gpus,
                    "mfu": self.mfu(phase),
                }
                for phase in self.phases
            ],
            "days": self.days,
            "gpu_hours": self.gpu_hours,
            "checkpoint_bytes": self.checkpoint_bytes,
            "megawatt_hours": self.megawatt_hours,
            "price": self.price,
            "currency": self.machine.currency,
        }


def forecast_run(config: RunConfig, machine: Machine, gpus: int, rates: Rates | None = None) -> RunForecast:
    """Foresee ``config`` on ``gpus`` GPUs.

    Raises:
        ConfigError: the layout does not fit the GPUs or the batch.
    """
    layout = config.validate_for_world(gpus)
    phases = []
    for number, name in enumerate(config.phase_names):
        part = config.in_phase(number)
        work = workload_of(part, part.validate_for_world(gpus))
        step = step_seconds(work, machine, rates or Rates())
        phases.append(PhaseForecast(name, part.total_steps, work, step))
    per_parameter = 14 if config.precision == "bf16" else 12
    checkpoint = count_parameters(config.model).total * per_parameter
    return RunForecast(machine, layout, tuple(phases), checkpoint)


def pipeline_replay(forecast: RunForecast, rates: Rates | None = None) -> list[Pass]:
    """What each pipeline rank does when, in the first micro-batches of a step; empty without a pipeline."""
    work = forecast.longest.work
    if work.pipeline == 1:
        return []
    timing = stage_timing(work, forecast.machine, rates or Rates())
    return pipeline_passes(timing, work.pipeline, min(work.micro_batches, _REPLAYED_ROUNDS * work.pipeline))
