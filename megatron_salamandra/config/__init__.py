"""Typed run configuration: loading, overrides and validation. Never imports torch.

config = load_run_config("salamandra-7b", ["parallel.tensor=2", "run_dir=runs/x"])
layout = config.validate_for_world(world_size)
"""

from __future__ import annotations

from megatron_salamandra.config.errors import ConfigError
from megatron_salamandra.config.layout import Layout
from megatron_salamandra.config.loading import load_run_config
from megatron_salamandra.config.pipeline_layout import PipelineStage, parse_pipeline_layout
from megatron_salamandra.config.presets import preset_names, presets_directory
from megatron_salamandra.config.run_config import RunConfig
from megatron_salamandra.config.sections import (
    CallbackSection,
    CheckpointSection,
    DataSection,
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
    "KernelsSection",
    "Layout",
    "LoggingSection",
    "ModelSection",
    "OptimizerSection",
    "ParallelSection",
    "PipelineStage",
    "RopeScalingSection",
    "RunConfig",
    "TrainingSection",
    "ValidationSection",
    "load_run_config",
    "parse_pipeline_layout",
    "preset_names",
    "presets_directory",
]
