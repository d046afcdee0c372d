"""What a configuration names must be there: found before a rank imports torch. Never imports torch."""

from __future__ import annotations

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.run_directory import (
    CheckpointError,
    RunDirectory,
    check_same_model,
    latest_checkpoint,
    resolve_checkpoint,
)
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError


def check_blends(config: RunConfig) -> None:
    """Make sure that every phase names a blend plan; its shards are looked at when the data is opened.

    Raises:
        ConfigError: one is not set, not there, or no blend plan; names its key.
    """
    for number, name in enumerate(config.phase_names):
        blend = config.in_phase(number).data.blend
        # A phase that has no blend of its own takes that of the run.
        own = bool(config.phases) and config.phases[name].blend is not None
        key = f"phases.{name}.blend" if own or (config.phases and blend is None) else "data.blend"
        if blend is None:
            raise ConfigError(
                f"{key} is not set\n  name a blend plan: {key}=PATH (salamandra data blend makes one)"
            )
        try:
            BlendPlan.parse(blend)
        except DataError as error:
            raise ConfigError(
                f"{key} = {blend} is no blend plan: {error}\n  name one: {key}=PATH (salamandra data blend makes one)"
            ) from error


def check_initial_weights(config: RunConfig, directory: RunDirectory) -> None:
    """Make sure that ``initialize_from`` is a checkpoint of the same model, if the run begins.

    Where the run resumes, the place may be gone by now. Asked of rank 0 alone, which decides on that.

    Raises:
        ConfigError: it is none.
    """
    place = config.initialize_from
    if place is None or latest_checkpoint(directory.checkpoints) is not None:
        return
    if (place / "config.json").is_file():
        raise ConfigError(
            f"initialize_from = {place}: a Hugging Face model, which training cannot start from yet\n"
            "  name a run directory or one of its checkpoints"
        )
    try:
        check_same_model(resolve_checkpoint(place), config.model.computation())
    except CheckpointError as error:
        raise ConfigError(f"initialize_from = {place}: {error}") from error
