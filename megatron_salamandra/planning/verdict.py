"""Whether the fullest rank fits its GPU, with what no plan can count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_salamandra.planning.memory import RankMemory

_GIB = 1 << 30
OUTSIDE_TENSORS_GIB = 2.5
"""Allowance for what is no tensor: what the driver keeps of the stated memory (about 0.5 GiB), the CUDA context with
its kernels (0.5), workspaces of cuBLAS and cuDNN (0.1 to 0.3), buffers of NCCL's communicators (0.1 to 0.3 each, for
tensor, data and pipeline groups). Not measured."""
FRAGMENTATION = 0.05
"""Allowance for what the allocator cannot use between tensors that come and go, as a share of those; with
``expandable_segments`` it is seldom more. Weights, gradients and optimizer stay where they are."""


@dataclass(frozen=True)
class Verdict:
    """The fullest rank against its GPU."""

    rank: RankMemory
    gpu_memory_gib: float

    @property
    def allowance_bytes(self) -> float:
        """What is added to the planned tensors."""
        return OUTSIDE_TENSORS_GIB * _GIB + FRAGMENTATION * self.rank.passing_bytes

    @property
    def needed_bytes(self) -> float:
        """Planned tensors and the allowance."""
        return self.rank.total_bytes + self.allowance_bytes

    @property
    def fits(self) -> bool:
        """Whether the GPU holds it."""
        return self.needed_bytes <= self.gpu_memory_gib * _GIB

    def sentence(self) -> str:
        """Fits or does not, by how much, and the largest part."""
        name, size = self.rank.largest
        return (
            f"{'fits' if self.fits else 'does not fit'}: pipeline rank {self.rank.pipeline_rank} needs "
            f"{self.needed_bytes / _GIB:.1f} GiB of {self.gpu_memory_gib:g} ({self.rank.total_bytes / _GIB:.1f} of "
            f"tensors, {self.allowance_bytes / _GIB:.1f} allowed for context, NCCL and fragmentation); most of it "
            f"{name}, {size / _GIB:.1f} GiB"
        )


def verdict_of(ranks: Sequence[RankMemory], gpu_memory_gib: float) -> Verdict:
    """The verdict on the rank that needs most.

    Args:
        ranks: of every place in the pipeline.
        gpu_memory_gib: of one GPU.
    """
    verdicts = [Verdict(rank, gpu_memory_gib) for rank in ranks]
    return max(verdicts, key=lambda verdict: verdict.needed_bytes)
