"""The data stream: blend plan -> samples -> micro-batches. Computed from the sample number, never looked up."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from megatron_salamandra.data.blend_changes import BlendChanges, compare_blends
from megatron_salamandra.data.block_checks import BlockChecks
from megatron_salamandra.data.documents import DocumentRules
from megatron_salamandra.data.ledger import (
    LanguageLedger,
    SourceLedger,
    by_language,
    carried_ordinals,
    final_ordinals,
)
from megatron_salamandra.data.phase_start import PhaseStart
from megatron_salamandra.data.run_stream import PhaseStream, RunStream
from megatron_salamandra.data.sample_stream import SampleLocation, SampleStream
from megatron_salamandra.data.shard_reader import ShardSpan
from megatron_salamandra.data.step_contents import DocumentPart, RunRecord, SampleContents

if TYPE_CHECKING:
    from megatron_salamandra.data.micro_batch import MicroBatch
    from megatron_salamandra.data.simulation import (
        Schedule,
        phase_tables,
        repeated_languages,
        simulate,
        simulation_csv,
        simulation_plot,
    )
    from megatron_salamandra.data.step_loader import StepLoader
    from megatron_salamandra.data.validation_set import ValidationSet, validation_sets

# Saying what a step was made of must not import torch; making its tensors must. Training needs no simulation.
_IMPORTED_WHEN_USED = {
    "MicroBatch": "micro_batch",
    "Schedule": "simulation",
    "StepLoader": "step_loader",
    "ValidationSet": "validation_set",
    "phase_tables": "simulation",
    "repeated_languages": "simulation",
    "simulate": "simulation",
    "simulation_csv": "simulation",
    "simulation_plot": "simulation",
    "validation_sets": "validation_set",
}

__all__ = [
    "BlendChanges",
    "BlockChecks",
    "DocumentPart",
    "DocumentRules",
    "LanguageLedger",
    "MicroBatch",
    "PhaseStart",
    "PhaseStream",
    "RunRecord",
    "RunStream",
    "SampleContents",
    "SampleLocation",
    "SampleStream",
    "Schedule",
    "ShardSpan",
    "SourceLedger",
    "StepLoader",
    "ValidationSet",
    "by_language",
    "carried_ordinals",
    "compare_blends",
    "final_ordinals",
    "phase_tables",
    "repeated_languages",
    "simulate",
    "simulation_csv",
    "simulation_plot",
    "validation_sets",
]


def __getattr__(name: str) -> Any:
    if (module := _IMPORTED_WHEN_USED.get(name)) is not None:
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
