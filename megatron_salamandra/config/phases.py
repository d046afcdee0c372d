"""The phases of a run: what changes from one to the next, on the same weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron_salamandra.config.section import FilePath, LanguageNames, Section
from megatron_salamandra.config.sections import RopeScalingSection


class LearningRateSection(Section):
    """How the learning rate of a phase joins that of the phase before; keys not given are those of ``optimizer``."""

    join: Literal["continue", "restart", "rewarm"] = Field(
        default="continue",
        description="continue: one schedule over this phase and those before it; restart: a schedule of its own, "
        "warmed up from 0; rewarm: a schedule of its own, warmed up from the last rate of the phase before.",
    )
    lr: float | None = Field(default=None, gt=0.0, description="Peak learning rate. Not with continue.")
    min_lr: float | None = Field(
        default=None, ge=0.0, description="Learning rate at the end. Not with continue."
    )
    schedule: Literal["cosine", "wsd", "constant"] | None = Field(
        default=None, description="Behind the warm-up, as in optimizer.schedule. Not with continue."
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps of linear warm-up to lr. Not with continue."
    )
    decay_steps: int | None = Field(
        default=None, ge=1, description="Steps of the final decay of wsd. Not with continue."
    )


class ExpectedTextSection(Section):
    """The text of a phase as far as it is known before there are shards; for ``salamandra data simulate``."""

    token_counts: FilePath = Field(
        description="File of tokens per source; relative to the file that names it."
    )
    factors: FilePath | None = Field(
        default=None,
        description="File of factors; relative to the file that names it. One of factors and temperature.",
    )
    temperature: float | None = Field(
        default=None, ge=1.0, description="Temperature of the shares. One of factors and temperature."
    )


class PhaseSection(Section):
    """One phase of a run; keys not given are those of the other sections."""

    steps: int | None = Field(
        default=None, ge=1, description="Length in optimizer steps. Exactly one of steps and tokens."
    )
    tokens: int | None = Field(
        default=None,
        ge=1,
        description="Length in tokens, rounded up to whole steps. Exactly one of steps and tokens.",
    )
    blend: FilePath | None = Field(
        default=None, description="Blend plan; data.blend if null. Relative to the current directory."
    )
    expected: ExpectedTextSection | None = Field(
        default=None, description="What simulations read while there is no blend."
    )
    new_text: LanguageNames = Field(
        default=(),
        description="Sources whose text is not that of the phase before: they start at their first window.",
    )
    sequence_length: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of one window; data.sequence_length if null. A phase whose windows are not those of the "
        "phase before starts every source at its first window.",
    )
    rope_scaling: RopeScalingSection | None = Field(
        default=None, description="Stretched wavelengths; model.rope_scaling if null."
    )
    global_batch_size: int | None = Field(
        default=None, ge=1, description="Samples per step; training.global_batch_size if null."
    )
    micro_batch_size: int | None = Field(
        default=None, ge=1, description="Samples a rank runs at once; training.micro_batch_size if null."
    )
    learning_rate: LearningRateSection = Field(
        default=LearningRateSection(), description="How the learning rate joins the phase before."
    )
