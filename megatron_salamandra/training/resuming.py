"""What a checkpoint has to do with the run that goes on from it: found, compared, and its changes logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_salamandra.checkpoint import LocalCopies, load_checkpoint, newest_intact
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.data import RunStream, SourceLedger
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.run_directory import (
    CONFIG,
    CheckpointError,
    CheckpointState,
    LedgerRecord,
    resolve_checkpoint,
)
from megatron_salamandra.timeline import Timeline, trained_steps
from megatron_salamandra.training.phase_changes import check_trained_phases
from megatron_salamandra.training.recipe_changes import recipe_changes
from megatron_salamandra.training.runtime import Runtime


def newest_checkpoint(runtime: Runtime) -> Path | None:
    """The newest intact checkpoint of the run, or None if it has none; collective.

    Damaged ones are passed over, each with a warning and an event.

    Raises:
        CheckpointError: the run has checkpoints, and none is intact.
    """

    def tell(directory: Path, error: CheckpointError) -> None:
        runtime.logger.warning("%s is passed over: %s", directory.name, error)
        runtime.events.write("checkpoint_passed_over", checkpoint=directory.name, reason=str(error))

    return newest_intact(runtime.directory.checkpoints, tell, local_copies(runtime))


def local_copies(runtime: Runtime) -> LocalCopies | None:
    """Checkpoints of the run on this node's own disk; None if none are kept."""
    policy = runtime.config.checkpoint
    if policy.local_dir is None:
        return None
    return LocalCopies(policy.local_dir, runtime.directory.path, policy.local_keep, runtime.grid.local_rank)


def check_same_stream(directory: Path, state: CheckpointState, data: RunStream) -> None:
    """Refuse a checkpoint of other data.

    Raises:
        CheckpointError: it was trained on another stream of samples.
    """
    if state.phase_streams != data.fingerprints(state.step):
        raise CheckpointError(
            f"{directory} was trained on another stream of samples: the blend's shards or factors, the "
            "start ordinals, the sequence length or the seed differ\n  restore them, or start a new run_dir"
        )


def timeline_after(
    directory: Path, state: CheckpointState, config: RunConfig, timeline: Timeline
) -> Timeline:
    """The run's timeline, of which the checkpoint has the beginning.

    Raises:
        CheckpointError: the checkpoint contradicts itself.
        ConfigError: its steps were of another size, or a phase that was trained on has changed.
    """
    try:
        trained = trained_steps(state.values)
    except ValueError as error:
        raise CheckpointError(f"{directory}: {error}; use another checkpoint") from error
    if trained is None:
        return timeline
    before, now = trained.segments[-1].batch_size, config.training.global_batch_size
    if before != now and not config.phases and len(trained.phases) == 1:
        raise ConfigError(
            f"training.global_batch_size = {now} is not that of {directory}, which consumed "
            f"{state.consumed_samples} samples in {state.step} steps\n"
            f"  use {before}, or start a new run_dir"
        )
    saved = load_run_config(str(directory / CONFIG))
    if config.phases or saved.phases:
        check_trained_phases(directory, saved, config, trained)
    return timeline.going_on_from(trained)


def recorded(entry: SourceLedger) -> LedgerRecord:
    """A source's account as a checkpoint keeps it."""
    return LedgerRecord(
        entry.source, entry.language, entry.samples, entry.tokens, entry.epochs, entry.next_ordinal
    )


def initialize_weights(
    runtime: Runtime, chunks: list[DistributedDataParallel], optimizer: MegatronOptimizer
) -> None:
    """Take the weights alone of ``initialize_from``, if it is given; collective.

    That it is a checkpoint of the same model is known by now (``named_places.py``).

    Raises:
        CheckpointError: it is damaged.
    """
    PROGRESS.enter(Part.START, "first weights")
    place = runtime.config.initialize_from
    if place is None:
        return
    try:
        directory = resolve_checkpoint(place)
        load_checkpoint(directory, runtime.config, chunks, None)
    except CheckpointError as error:
        raise CheckpointError(f"initialize_from = {place}: {error}") from error
    optimizer.reload_model_params()  # the fp32 masters are copies
    runtime.logger.info("the weights are those of %s", directory)
    runtime.events.write("initialize", checkpoint=str(directory))


def tell_changes(
    runtime: Runtime, directory: Path, state: CheckpointState, unknown_callbacks: Sequence[str]
) -> None:
    """Log what the checkpoint was trained with and this run changes; each setting of the recipe is an event, too.

    Args:
        unknown_callbacks: names with a state in the checkpoint that no callback of this run has.
    """
    logger, config = runtime.logger, runtime.config
    saved = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    for change in recipe_changes(saved, config.to_dict()):
        logger.warning("%s was %s and is %s from here on", change.key, change.before, change.now)
        runtime.events.write("change", key=change.key, before=change.before, now=change.now)
    if state.total_steps != config.total_steps:
        logger.warning(
            "the run had %d steps and has %d now: schedules that depend on it change from here on",
            state.total_steps,
            config.total_steps,
        )
    if unknown_callbacks:
        logger.warning(
            "the checkpoint has the state of the callback %s, which this run does not have: it ends here",
            ", ".join(unknown_callbacks),
        )
