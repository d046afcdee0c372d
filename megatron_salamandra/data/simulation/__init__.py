"""A run's data before there is any: what each language gets, how often, and when, from token counts or plans."""

from __future__ import annotations

from megatron_salamandra.data.simulation.report import (
    phase_tables,
    repeated_languages,
    simulation_csv,
    simulation_plot,
)
from megatron_salamandra.data.simulation.schedule import Phase, Schedule
from megatron_salamandra.data.simulation.simulate import PhaseResult, SimulatedPoint, simulate

__all__ = [
    "Phase",
    "PhaseResult",
    "Schedule",
    "SimulatedPoint",
    "phase_tables",
    "repeated_languages",
    "simulate",
    "simulation_csv",
    "simulation_plot",
]
