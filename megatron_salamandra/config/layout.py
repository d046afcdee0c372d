"""How many ranks do what: the arithmetic between the world size and the batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """A parallel layout that has been checked against a world size.

    ``world_size = tensor_parallel_size * pipeline_parallel_size * data_parallel_size`` and
    ``global_batch_size = micro_batch_size * data_parallel_size * micro_batches_per_step``.
    """

    world_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    virtual_pipeline_size: int | None
    data_parallel_size: int
    micro_batches_per_step: int

    @property
    def model_chunks(self) -> int:
        """Model chunks on each pipeline rank."""
        return self.virtual_pipeline_size or 1

    def describe(self) -> str:
        """Short name for tables and logs, such as ``TP4 PP2 DP128``."""
        virtual = f" VPP{self.virtual_pipeline_size}" if self.virtual_pipeline_size else ""
        return f"TP{self.tensor_parallel_size} PP{self.pipeline_parallel_size}{virtual} DP{self.data_parallel_size}"
