"""The data stream: blend plan -> samples -> micro-batches. Computed from the sample number, never looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.data.blend_changes import BlendChanges, compare_blends
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
    from megatron_salamandra.data.step_loader import StepLoader
    from megatron_salamandra.data.validation_set import ValidationSet, validation_sets

__all__ = [
    "BlendChanges",
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
    "ShardSpan",
    "SourceLedger",
    "StepLoader",
    "ValidationSet",
    "by_language",
    "carried_ordinals",
    "compare_blends",
    "final_ordinals",
    "validation_sets",
]


def __getattr__(name: str) -> Any:
    # Saying what a step was made of must not import torch; making its tensors must.
    if name == "MicroBatch":
        from megatron_salamandra.data.micro_batch import MicroBatch

        return MicroBatch
    if name == "StepLoader":
        from megatron_salamandra.data.step_loader import StepLoader

        return StepLoader
    if name in ("ValidationSet", "validation_sets"):
        from megatron_salamandra.data import validation_set

        return getattr(validation_set, name)
    raise AttributeError(name)
