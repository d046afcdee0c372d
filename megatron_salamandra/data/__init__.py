"""The data stream: blend plan -> samples -> micro-batches. Computed from the sample number, never looked up."""

from megatron_salamandra.data.documents import DocumentRules
from megatron_salamandra.data.ledger import SourceLedger, final_ordinals
from megatron_salamandra.data.micro_batch import MicroBatch
from megatron_salamandra.data.sample_stream import SampleLocation, SampleStream
from megatron_salamandra.data.shard_reader import ShardSpan
from megatron_salamandra.data.step_loader import StepLoader
from megatron_salamandra.data.validation_set import ValidationSet, validation_sets

__all__ = [
    "DocumentRules",
    "MicroBatch",
    "SampleLocation",
    "SampleStream",
    "ShardSpan",
    "SourceLedger",
    "StepLoader",
    "ValidationSet",
    "final_ordinals",
    "validation_sets",
]
