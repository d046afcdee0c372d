"""The training loop, its state, and the callbacks that hang on it.

Public names, for whoever writes a callback (none of them imports torch): :class:`Callback`, :class:`Decision`,
:class:`Action`, :class:`Measurement`, :class:`StepReport`, :class:`LanguageScore`, :class:`Run`. For whoever adds a
place where metrics go: :class:`Sink`, :class:`Metric`. For whoever runs training: :class:`Runtime`,
:class:`StopRequested`, :class:`Trainer`, :class:`TrainerParts`, :class:`TrainingError`,
:func:`configured_callbacks`, :func:`check_blends`, :func:`check_initial_weights`. For whoever runs single steps:
:func:`build_model_and_optimizer`, :class:`TrainStep`, :class:`CallbackList`, :class:`Progress`,
:func:`run_micro_batches`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from megatron_salamandra.training.callbacks import Callback, CallbackList
from megatron_salamandra.training.callbacks.configured import configured_callbacks
from megatron_salamandra.training.decision import Action, Decision
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.named_places import check_blends, check_initial_weights
from megatron_salamandra.training.report import LanguageScore, Measurement, StepReport
from megatron_salamandra.training.run_view import Progress, Run

if TYPE_CHECKING:
    from megatron_salamandra.training.assembly import build_model_and_optimizer
    from megatron_salamandra.training.forward_backward import run_micro_batches
    from megatron_salamandra.training.parts import TrainerParts
    from megatron_salamandra.training.runtime import Runtime, StopRequested
    from megatron_salamandra.training.train_step import TrainStep
    from megatron_salamandra.training.trainer import Trainer

__all__ = [
    "Action",
    "Callback",
    "CallbackList",
    "Decision",
    "LanguageScore",
    "Measurement",
    "Metric",
    "Progress",
    "Run",
    "Runtime",
    "Sink",
    "StepReport",
    "StopRequested",
    "TrainStep",
    "Trainer",
    "TrainerParts",
    "TrainingError",
    "build_model_and_optimizer",
    "check_blends",
    "check_initial_weights",
    "configured_callbacks",
    "run_micro_batches",
]

_WITH_TORCH = {
    "Runtime": "runtime",
    "StopRequested": "runtime",
    "TrainStep": "train_step",
    "Trainer": "trainer",
    "TrainerParts": "parts",
    "build_model_and_optimizer": "assembly",
    "run_micro_batches": "forward_backward",
}


def __getattr__(name: str) -> Any:
    # A configuration's callbacks are checked before torch is imported.
    if name in _WITH_TORCH:
        return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    raise AttributeError(name)
