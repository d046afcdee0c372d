"""What a rehearsal finds, as values that can be compared and written as JSON. Never imports torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Category(StrEnum):
    """What memory is for."""

    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    TEMPORARY = "temporary"


@dataclass(frozen=True)
class MemoryPeak:
    """The most that a rank holds in one phase of a step, in bytes of tensors, and what for.

    Attributes:
        phase: ``start``, ``forward``, ``backward``, ``reduce``, ``update``, ``save``.
        detail: such as the micro-batch.
        module: the module that was running, such as ``decoder.layers.3.mlp``; "" if none was.
        weights_bytes: as the model computes with them.
        gradients_bytes: the buffers that gradients are added up in.
        optimizer_bytes: master weights and moments, this rank's share.
        activations_bytes: made in a forward pass and kept when it was over.
        logits_bytes: whatever the output layer and the loss make.
        temporary_bytes: the rest: gradients of activations, what lives within a module, tables, messages.
    """

    phase: str
    detail: str
    module: str
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    temporary_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum over what it is for."""
        return sum(getattr(self, f"{category.value}_bytes") for category in Category)

    @property
    def largest(self) -> Category:
        """What most of it is for."""
        return max(Category, key=lambda category: getattr(self, f"{category.value}_bytes"))


@dataclass(frozen=True)
class Group:
    """A process group.

    Attributes:
        name: what Megatron-Core calls it; its ranks in other places of the grid have one of the same name.
        ranks: of the world.
    """

    name: str
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One collective, or one message.

    Attributes:
        name: such as ``all-reduce``, ``send``.
        bytes: of the whole that the group shares, on one rank.
        peer: the other rank of a message, by its number in the world; None for a collective.
        waits: whether the rank waits for the others before it goes on.
        phase: of the step.
        forward_pass: so many forward passes of model chunks had begun.
        site: file, line and function.
    """

    name: str
    group: Group
    dtype: str
    bytes: int
    peer: int | None
    waits: bool
    phase: str
    forward_pass: int
    site: str


@dataclass(frozen=True)
class CollectiveUse:
    """Collectives of one kind in a step.

    Attributes:
        name: such as ``all-reduce``.
        group: name of the process group.
        ranks: of the group.
        bytes: of the whole that the group shares, on one rank, over all of them.
    """

    name: str
    group: str
    ranks: int
    dtype: str
    count: int
    bytes: int


@dataclass(frozen=True)
class MessageUse:
    """Messages to one other rank in a step, or from it."""

    name: str
    peer: int
    dtype: str
    count: int
    bytes: int


@dataclass(frozen=True)
class RankRehearsal:
    """What one rank holds and does in a step.

    Attributes:
        rank: number in the world.
        stands_for: ranks that are like it, itself among them.
        parameters: of the model, on this rank.
        peaks: of each phase of a step that follows on another one.
        collectives, messages: of a step.
        save_bytes: what the rank writes in a save, and holds in the host's memory until it is written.
        seconds: that its rehearsal took.
    """

    rank: int
    tensor_rank: int
    pipeline_rank: int
    data_rank: int
    stands_for: int
    parameters: int
    peaks: tuple[MemoryPeak, ...]
    collectives: tuple[CollectiveUse, ...]
    messages: tuple[MessageUse, ...]
    save_bytes: int
    seconds: float

    @property
    def save_bytes_per_parameter(self) -> float:
        """Bytes of the host's memory that a save takes on this rank, for each of its parameters."""
        return self.save_bytes / self.parameters

    @property
    def peak(self) -> MemoryPeak:
        """The largest of the peaks."""
        return max(self.peaks, key=lambda peak: peak.total_bytes)


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsed job.

    Attributes:
        model: its name.
        stages: of the pipeline, each with as many ranks.
        layout: such as ``TP4 x PP2 x DP128 (1024 ranks)``.
        micro_batches: of each rank in a step.
        micro_batches_run: so many of them were rehearsed; the others repeat the last of these.
        gpu_memory_gib: what each rank had to fit into; None if nothing was said.
        ranks: those that were rehearsed, by number.
        problems: what would make the job fail; empty if nothing was found.
    """

    model: str
    world_size: int
    stages: int
    layout: str
    micro_batches: int
    micro_batches_run: int
    gpu_memory_gib: float | None
    ranks: tuple[RankRehearsal, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values, sums included."""
        values = asdict(self)
        for written, rank in zip(values["ranks"], self.ranks, strict=True):
            for part, peak in zip(written["peaks"], rank.peaks, strict=True):
                part["total_bytes"] = peak.total_bytes
            written["peak_bytes"] = rank.peak.total_bytes
            written["save_bytes_per_parameter"] = rank.save_bytes_per_parameter
        return values
