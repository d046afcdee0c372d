"""The training loop, its state, and the callbacks that hang on it.

Public names, for whoever writes a callback (none of them imports torch): :class:`Callback`, :class:`Decision`,
:class:`Action`, :class:`Measurement`, :class:`StepReport`, :class:`LanguageScore`, :class:`Run`. For whoever adds a
place where metrics go: :class:`Sink`, :class:`Metric`. For whoever runs training: :class:`Runtime`,
:class:`StopRequested`, :class:`Trainer`, :class:`TrainerParts`, :class:`TrainingError`,
:func:`configured_callbacks`, :func:`check_blends`, :func:`check_initial_weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megatron_salamandra.training.callbacks import Callback
from megatron_salamandra.training.callbacks.configured import configured_callbacks
from megatron_salamandra.training.decision import Action, Decision
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.named_places import check_blends, check_initial_weights
from megatron_salamandra.training.report import LanguageScore, Measurement, StepReport
from megatron_salamandra.training.run_view import Run

if TYPE_CHECKING:
    from megatron_salamandra.training.parts import TrainerParts
    from megatron_salamandra.training.runtime import Runtime, StopRequested
    from megatron_salamandra.training.trainer import Trainer

__all__ = [
    "Action",
    "Callback",
    "Decision",
    "LanguageScore",
    "Measurement",
    "Metric",
    "Run",
    "Runtime",
    "Sink",
    "StepReport",
    "StopRequested",
    "Trainer",
    "TrainerParts",
    "TrainingError",
    "check_blends",
    "check_initial_weights",
    "configured_callbacks",
]


def __getattr__(name: str) -> Any:
    # A configuration's callbacks are checked before torch is imported.
    if name in ("Runtime", "StopRequested"):
        from megatron_salamandra.training import runtime

        return getattr(runtime, name)
    if name == "Trainer":
        from megatron_salamandra.training.trainer import Trainer

        return Trainer
    if name == "TrainerParts":
        from megatron_salamandra.training.parts import TrainerParts

        return TrainerParts
    raise AttributeError(name)
