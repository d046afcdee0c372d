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
from megatron_salamandra.config.sections import (
    CallbackSection,
    CheckpointSection,
    DataSection,
    FilePath,
    KernelsSection,
    LoggingSection,
    ModelSection,
    OptimizerSection,
    ParallelSection,
    Section,
    TrainingSection,
    ValidationSection,
)
from megatron_salamandra.timeline import Timeline


class RunConfig(Section):
    """Everything a run is told. Immutable; contradictions between keys are refused on construction.

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
    logging: LoggingSection = LoggingSection()
    callbacks: Annotated[tuple[CallbackSection, ...], Field(strict=False)] = Field(
        default=(), description="Classes of yours that take part in training, in this order."
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

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all ranks."""
        return self.training.global_batch_size * self.data.sequence_length

    @property
    def total_steps(self) -> int:
        """Length of the run in optimizer steps; a length in tokens is rounded up to whole steps."""
        if self.training.steps is not None:
            return self.training.steps
        assert self.training.tokens is not None  # find_problems saw that exactly one is given
        return -(-self.training.tokens // self.tokens_per_step)

    @property
    def timeline(self) -> Timeline:
        """Which samples each step takes, as far as the configuration decides it."""
        return Timeline.of_one_phase(
            "main",
            steps=self.total_steps,
            batch_size=self.training.global_batch_size,
            sequence_length=self.data.sequence_length,
        )

    def validate_for_world(self, world_size: int) -> Layout:
        """Check the layout against ``world_size`` ranks and return it.

        Raises:
            ConfigError: the ranks or the batch do not divide; shows the arithmetic and what would work.
        """
        fitted = fit_to_world(self, world_size)
        if isinstance(fitted, Problem):
            raise self._origins.error([fitted])
        return fitted

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
