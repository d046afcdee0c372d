"""Which steps of a run are profiled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from megatron_salamandra.config.section import Section

_Count = Annotated[int, Field(ge=1)]
_Rank = Annotated[int, Field(ge=0)]


class ProfileSection(Section):
    """Steps whose trace is written: what the host and the device did, and when. Training gives the same numbers."""

    steps: tuple[_Count, _Count] = Field(
        strict=False,
        description="First and last step, such as [20, 22]; a few are enough, and each has megabytes.",
    )
    ranks: tuple[_Rank, ...] = Field(
        default=(0,), strict=False, min_length=1, description="Ranks that are profiled, from 0."
    )
    memory: bool = Field(
        default=False,
        description="Trace every allocation as well, and on CUDA write a snapshot of memory for "
        "pytorch.org/memory_viz: which line allocated what is held.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> ProfileSection:
        if self.steps[0] > self.steps[1]:
            raise ValueError(f"steps = {list(self.steps)}: the first is behind the last")
        return self
