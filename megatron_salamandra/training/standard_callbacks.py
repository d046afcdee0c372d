"""The callbacks and sinks of a run, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from megatron_salamandra.training.callbacks import Callback
from megatron_salamandra.training.callbacks.checkpointing import Checkpointing
from megatron_salamandra.training.callbacks.control import ControlRequests
from megatron_salamandra.training.callbacks.garbage_collection import GarbageCollection
from megatron_salamandra.training.callbacks.guard import Guard
from megatron_salamandra.training.callbacks.validation import Validation
from megatron_salamandra.training.metrics.book import MetricBook
from megatron_salamandra.training.metrics.console import Console
from megatron_salamandra.training.metrics.files import RunFiles, UnitsFile
from megatron_salamandra.training.metrics.sink_thread import SinkThread
from megatron_salamandra.training.metrics.sinks import Sink, SinkList
from megatron_salamandra.training.metrics.step_metrics import StepMetrics, WriteMetrics
from megatron_salamandra.training.run_view import Run


def standard_sinks(run: Run) -> list[Sink]:
    """Where the metrics of this rank go: files and trackers on rank 0, the log on every rank."""
    if not run.is_writer:
        return [Console(run)]
    sinks: list[Sink] = [RunFiles(run.directory), UnitsFile(run.directory), Console(run)]
    wanted = run.config.logging
    if wanted.tensorboard:
        from megatron_salamandra.training.metrics.tensorboard import TensorBoard

        sinks.append(TensorBoard(run.directory.tensorboard))
    if wanted.wandb_project is not None:
        from megatron_salamandra.training.metrics.trackers import WeightsAndBiases

        sinks.append(WeightsAndBiases(run, wanted.wandb_project))
    if wanted.mlflow_experiment is not None:
        from megatron_salamandra.training.metrics.trackers import MlFlow

        sinks.append(MlFlow(run, wanted.mlflow_experiment))
    return sinks


def in_order(
    run: Run,
    book: MetricBook,
    *,
    measure: StepMetrics,
    others: Sequence[Callback],
    twins: Callable[[Guard], Callback | None],
    more_sinks: Sequence[Sink],
    validation: Validation,
    checkpointing: Checkpointing,
) -> list[Callback]:
    """All callbacks of a run.

    Args:
        others: of the configuration and of whoever builds the trainer. What they record of a step is written with it.
        twins: makes the one that compares twins, if one is wanted; it shares the guard's budget, and comes before what
            writes and saves.
        more_sinks: besides those that the configuration asks for.
    """
    write = WriteMetrics(book, SinkThread(SinkList([*standard_sinks(run), *more_sinks], run.logger)))
    guard = Guard(run.config.guard)
    first: list[Callback] = [measure, ControlRequests(), guard]
    if (every := run.config.training.garbage_collection_steps) is not None:
        first.append(GarbageCollection(every))
    profile = run.config.training.profile
    if profile is not None and run.rank in profile.ranks:
        from megatron_salamandra.training.callbacks.profiling import Profiling

        first.append(Profiling(profile))
    compare = [callback] if (callback := twins(guard)) is not None else []
    # Checkpoints last: what the others have to say of a step is handed over before it is saved.
    return [*first, *others, *compare, write, validation, checkpointing]
