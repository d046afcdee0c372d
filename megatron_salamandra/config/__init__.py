"""Typed run configuration: loading, overrides and validation. Never imports torch.

config = load_run_config("salamandra-7b", ["parallel.tensor=2", "run_dir=runs/x"])
layout = config.validate_for_world(world_size)
"""

from __future__ import annotations

from megatron_salamandra.config.errors import ConfigError
from megatron_salamandra.config.layout import Layout
from megatron_salamandra.config.learning_rate import RateSpan, learning_rate, learning_rate_of, rate_spans
from megatron_salamandra.config.loading import load_run_config
from megatron_salamandra.config.phases import ExpectedTextSection, LearningRateSection, PhaseSection
from megatron_salamandra.config.pipeline_layout import PipelineStage, parse_pipeline_layout
from megatron_salamandra.config.presets import preset_names, presets_directory
from megatron_salamandra.config.profile_section import ProfileSection
from megatron_salamandra.config.run_config import RunConfig
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
    RopeScalingSection,
    TrainingSection,
    ValidationSection,
)

__all__ = [
    "CallbackSection",
    "CheckpointSection",
    "ConfigError",
    "DataSection",
    "ExpectedTextSection",
    "GuardSection",
    "HangSection",
    "KernelsSection",
    "Layout",
    "LearningRateSection",
    "LoggingSection",
    "ModelSection",
    "OptimizerSection",
    "ParallelSection",
    "PhaseSection",
    "PipelineStage",
    "ProfileSection",
    "RateSpan",
    "RopeScalingSection",
    "RunConfig",
    "TrainingSection",
    "ValidationSection",
    "learning_rate",
    "learning_rate_of",
    "load_run_config",
    "parse_pipeline_layout",
    "preset_names",
    "presets_directory",
    "rate_spans",
]
