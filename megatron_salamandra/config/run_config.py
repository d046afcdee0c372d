"""The whole configuration of a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from megatron_salamandra.config.consistency import find_problems, fit_to_world
from megatron_salamandra.config.errors import KeyOrigins, Problem
from megatron_salamandra.config.installed import missing_packages
from megatron_salamandra.config.layout import Layout
from megatron_salamandra.config.phase_consistency import of_phase
from megatron_salamandra.config.phases import PhaseSection
from megatron_salamandra.config.section import FilePath, Section
from megatron_salamandra.config.sections import (
    CallbackSection,
    CheckpointSection,
    DataSection,
    GuardSection,
    HangSection,
    KernelsSection,
    LoggingSection,
    ModelSection,
    OptimizerSection,
    ParallelSection,
    TrainingSection,
    ValidationSection,
)
from megatron_salamandra.timeline import Segment, Timeline

ONLY_PHASE = "main"
"""Name of the phase of a run without ``phases``."""


class RunConfig(Section):
    """Everything that decides a run. Immutable; contradictions between keys are refused on construction.

    Use :func:`megatron_salamandra.config.load_run_config` to read one: its errors name files.
    """

    run_dir: FilePath | None = Field(
        default=None,
        description="Directory of the run: metrics, checkpoints, logs. Required to train; an existing one resumes.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="bf16 weights with fp32 master weights, or fp32 throughout."
    )
    platform: Literal["auto", "cuda", "host"] = Field(
        default="auto", description="cuda (NCCL), host (CPU over gloo), or whichever the machine has."
    )
    model: ModelSection
    parallel: ParallelSection = ParallelSection()
    kernels: KernelsSection = KernelsSection()
    training: TrainingSection
    optimizer: OptimizerSection
    data: DataSection
    validation: ValidationSection = ValidationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    guard: GuardSection = GuardSection()
    logging: LoggingSection = LoggingSection()
    hangs: HangSection = HangSection()
    callbacks: Annotated[tuple[CallbackSection, ...], Field(strict=False)] = Field(
        default=(), description="Classes of yours that take part in training, in this order."
    )
    initialize_from: FilePath | None = Field(
        default=None,
        description="Checkpoint or run directory whose weights alone the run starts from; moments, steps and place in "
        "the data are its own. null: weights are drawn by training.seed. Not read where the run resumes.",
    )
    phases: dict[str, PhaseSection] = Field(
        default={},
        description="Phases of the run by name, in order: text, length, windows and learning rate of each. Without "
        "them the run is one phase. They replace training.steps and training.tokens.",
    )

    _origins: KeyOrigins = PrivateAttr(default_factory=KeyOrigins)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> RunConfig:
        problems = find_problems(self)
        if problems:
            text = "\n".join(KeyOrigins().render(problem) for problem in problems)
            # Braces would be read as a format string; the text travels in the context instead.
            raise PydanticCustomError("contradiction", "{text}", {"text": text, "problems": problems})
        return self

    def __hash__(self) -> int:
        return hash(self.to_yaml())  # the mapping of phases has none

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all ranks, in a run without phases."""
        return self.training.global_batch_size * self.data.sequence_length

    @property
    def total_steps(self) -> int:
        """Length of the run in optimizer steps; a length in tokens is rounded up to whole steps."""
        if self.phases:
            return sum(self.phase_steps(number) for number in range(len(self.phases)))
        return _whole_steps(self.training.steps, self.training.tokens, self.tokens_per_step)

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Names of the phases, in order; a run without phases is one."""
        return tuple(self.phases) or (ONLY_PHASE,)

    def phase_steps(self, number: int) -> int:
        """Length of a phase in optimizer steps."""
        if not self.phases:
            return self.total_steps
        phase = list(self.phases.values())[number]
        batch = phase.global_batch_size or self.training.global_batch_size
        return _whole_steps(
            phase.steps, phase.tokens, batch * (phase.sequence_length or self.data.sequence_length)
        )

    def in_phase(self, number: int) -> RunConfig:
        """This configuration as it is while a phase lasts: a run of that phase alone."""
        if not self.phases:
            return self
        phase = list(self.phases.values())[number]
        data = {"blend": phase.blend, "sequence_length": phase.sequence_length}
        batches = {"global_batch_size": phase.global_batch_size, "micro_batch_size": phase.micro_batch_size}
        training = {**_given(batches), "steps": self.phase_steps(number), "tokens": None}
        return self.model_copy(
            update={
                "data": self.data.model_copy(update=_given(data)),
                "model": self.model.model_copy(update=_given({"rope_scaling": phase.rope_scaling})),
                "training": self.training.model_copy(update=training),
                "phases": {},
            }
        )

    def at_step(self, step: int) -> RunConfig:
        """This configuration as it is after ``step`` steps: windows and rotary scaling of the phase they ended in."""
        timeline = self.timeline
        return self.in_phase(timeline.phase(min(max(step, 1), timeline.total_steps)))

    @property
    def timeline(self) -> Timeline:
        """Which samples each step takes, as far as the configuration decides it."""
        parts = [self.in_phase(number) for number in range(len(self.phase_names))]
        return Timeline(
            self.phase_names,
            tuple(
                Segment(
                    phase=number,
                    steps=part.total_steps,
                    first_sample=0,
                    batch_size=part.training.global_batch_size,
                    sequence_length=part.data.sequence_length,
                )
                for number, part in enumerate(parts)
            ),
        )

    def validate_for_world(self, world_size: int) -> Layout:
        """Check the layout against ``world_size`` ranks in every phase and return that of the first.

        Raises:
            ConfigError: the ranks or the batch do not divide; shows the arithmetic and what would work.
        """
        layouts = []
        for number in range(len(self.phase_names)):
            fitted = fit_to_world(self.in_phase(number), world_size)
            if isinstance(fitted, Problem):
                raise self._origins.error([of_phase(fitted, self, number)])
            layouts.append(fitted)
        return layouts[0]

    def validate_packages(self) -> None:
        """Check that the optional packages this configuration asks for are installed.

        Raises:
            ConfigError: one is missing; names the key that asks for it.
        """
        missing = missing_packages(self)
        if missing:
            raise self._origins.error(missing)

    def origin_of(self, key: str) -> str | None:
        """File (or ``command line``) that set the dotted ``key``; None where the default holds."""
        return self._origins.find(key)

    def to_dict(self) -> dict[str, Any]:
        """Plain mappings, numbers and strings, with every default spelled out."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved configuration as YAML; loading it gives an equal configuration."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _whole_steps(steps: int | None, tokens: int | None, tokens_per_step: int) -> int:
    if steps is not None:
        return steps
    assert tokens is not None  # find_problems saw that exactly one is given
    return -(-tokens // tokens_per_step)
