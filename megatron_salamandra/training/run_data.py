"""The data of a run: its blend and its start ordinals, checked against the configuration, then frozen."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.data import BlockChecks, PhaseStart, RunStream, compare_blends
from megatron_salamandra.hangs import PROGRESS, Part
from megatron_salamandra.parallel import ProcessGrid
from megatron_salamandra.run_directory import CheckpointError, RunDirectory
from megatron_salamandra.training.earlier_run import start_after
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError


@dataclass(frozen=True)
class OpenedData:
    """The data of a run that is about to start: dealt, and not yet frozen in its directory.

    Attributes:
        stream: the samples of all phases.
        plan: the blend of the first phase.
        start: what the run goes on from; None if from nothing.
    """

    stream: RunStream
    plan: BlendPlan
    start: PhaseStart | None

    def freeze(self, directory: RunDirectory) -> None:
        """Write what decides the samples of the first phase, unless an earlier start did; the blends of later phases
        are frozen when they begin.

        Called by rank 0 when nothing can refuse the start any more: what is frozen cannot be changed.

        Raises:
            WriteError: the system refused.
        """
        if directory.blend_lock.exists():
            return
        # The blend comes last: with it the run counts as started.
        if self.start is None:
            directory.ordinals_lock.unlink(missing_ok=True)  # of a start that got no further
        else:
            self.start.freeze(directory.path)
        self.plan.freeze(directory.blend_lock)


def open_data(
    config: RunConfig, directory: RunDirectory, grid: ProcessGrid, logger: logging.Logger
) -> OpenedData:
    """Load the blend of every phase and make the run's streams, and check them; collective.

    Raises:
        ConfigError: a tokenizer with more ids than the model has rows, or an earlier phase
            (``data.continue_from``) that does not fit this one, or is not the one that the run was started with.
        DataError: a blend's files are not what it says, the run was started on another blend, the phases have
            different tokenizers, or the earlier run cannot be read.
    """
    PROGRESS.enter(Part.START, "opening the data")
    plans = [_load_plan(config, number) for number in range(len(config.phase_names))]
    for name, plan in zip(config.phase_names, plans, strict=True):
        if plan.tokenizer.sha256 != plans[0].tokenizer.sha256:
            raise DataError(
                f"phases.{name}.blend was made with another tokenizer than that of {config.phase_names[0]}: "
                f"{plan.tokenizer.path} and {plans[0].tokenizer.path}\n"
                "  all phases need one tokenizer: tokenize the text of this one again"
            )
    lock, blend = directory.blend_lock, config.in_phase(0).data.blend
    if lock.exists():
        assert blend is not None  # it was loaded
        _compare_with_lock(lock, blend, plans[0], logger)
    start = _phase_start(config, plans[0], directory, grid, logger)
    stream = RunStream(
        config, plans, config.timeline, start.start_ordinals if start else None, _checks(config, grid)
    )
    unused = config.model.vocab_size - plans[0].tokenizer.vocab_size
    if unused:
        logger.info("the vocabulary has %d rows that the tokenizer does not use", unused)
    return OpenedData(stream, plans[0], start)


def _checks(config: RunConfig, grid: ProcessGrid) -> BlockChecks:
    return BlockChecks(config.data.block_check_mb_per_second * 1e6, grid.data_rank, grid.data_size)


def _load_plan(config: RunConfig, number: int) -> BlendPlan:
    """The blend of a phase, whose ids the model has rows for."""
    blend = config.in_phase(number).data.blend
    assert blend is not None  # see named_places.py
    plan = BlendPlan.load(blend)
    if plan.tokenizer.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size} is smaller than the {plan.tokenizer.vocab_size} ids "
            f"of {plan.tokenizer.path}\n  raise model.vocab_size to at least {plan.tokenizer.vocab_size} "
            f"(a multiple of parallel.tensor = {config.parallel.tensor})"
        )
    return plan


def _compare_with_lock(lock: Path, blend: Path, plan: BlendPlan, logger: logging.Logger) -> None:
    """Refuse another stream of samples and tell about other held-out text.

    Compared by content: the data may have been moved since, and the lock names old places.
    """
    changes = compare_blends(BlendPlan.parse(lock), plan)
    if changes.of_samples:
        raise DataError(
            f"{blend} differs from {lock}, on which this run was started: {', '.join(changes.of_samples)}\n"
            "  restore the blend, or start a new run_dir"
        )
    if changes.of_validation:
        logger.warning(
            "%s holds out other text than %s: %s; scores before and after this start do not compare",
            blend,
            lock,
            ", ".join(changes.of_validation),
        )


def _phase_start(
    config: RunConfig, plan: BlendPlan, directory: RunDirectory, grid: ProcessGrid, logger: logging.Logger
) -> PhaseStart | None:
    """What the run goes on from, None if from nothing; read by rank 0 for all, so that all agree; collective."""
    found: list[PhaseStart | ValueError | None] = [None]
    if grid.rank == 0:
        try:
            if directory.blend_lock.exists():
                found[0] = _frozen_start(config, directory)
            elif config.data.continue_from is not None:
                found[0] = start_after(config.data.continue_from, config, plan, logger)
        except (CheckpointError, ConfigError, DataError) as error:  # the other ranks wait for the answer
            found[0] = error
    dist.broadcast_object_list(found, src=0)
    if isinstance(found[0], ValueError):
        raise found[0]
    return found[0]


def _frozen_start(config: RunConfig, directory: RunDirectory) -> PhaseStart | None:
    """What the run was started with; the earlier run may be gone by now.

    Raises:
        ConfigError: the configuration says something else.
    """
    lock = directory.ordinals_lock
    frozen = PhaseStart.load(directory.path) if lock.exists() else None
    before = (frozen.continue_from, frozen.new_text) if frozen else (None, ())
    given = config.data.continue_from
    now = (given and Path(os.path.abspath(given)), tuple(sorted(set(config.data.new_text))))
    for key, was, is_now in zip(("continue_from", "new_text"), before, now, strict=True):
        if was != is_now:
            raise ConfigError(
                f"data.{key} = {_shown(is_now)} is not what the run in {directory.path} was started with: "
                f"{_shown(was)}\n"
                f"  restore data.{key}, or start a new run_dir"
            )
    return frozen


def _shown(value: Path | tuple[str, ...] | None) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, Path) else f"[{', '.join(value)}]"
