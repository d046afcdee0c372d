"""What an earlier run leaves to a run that goes on from it: the place it reached in each language."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.data import PhaseStart, RunRecord, SampleStream, carried_ordinals
from megatron_salamandra.run_directory import CheckpointError, RunDirectory, read_state, resolve_checkpoint
from salamandra_data.blend_plan import BlendPlan, BlendSource
from salamandra_data.errors import DataError


def start_after(
    continue_from: Path, config: RunConfig, plan: BlendPlan, logger: logging.Logger
) -> PhaseStart:
    """Read where the run at ``continue_from`` stands by its latest complete checkpoint.

    Languages that this phase does not draw keep their place. Where a language's text has changed, a warning
    says so, and its ordinal still counts windows.

    Args:
        continue_from: run directory, or one of its checkpoints.
        config, plan: of the run that goes on.
    Raises:
        ConfigError: ``data.new_text`` names a language that the blend does not have, the earlier run has another
            sequence length or another seed, or there is no such run, no complete checkpoint of it, or they do not
            belong together. None of these is mended by another start.
    """
    sources = [source.name for source in plan.sources]
    if unknown := [name for name in config.data.new_text if name not in sources]:
        raise ConfigError(
            f"data.new_text names {', '.join(unknown)}, which {config.data.blend} does not have\n"
            f"  its sources: {', '.join(sources)}"
        )
    try:
        checkpoint = resolve_checkpoint(continue_from)
        state = read_state(checkpoint)
        earlier = RunRecord(RunDirectory.around(checkpoint).path)
    except (CheckpointError, ConfigError, DataError) as error:
        raise ConfigError(f"data.continue_from = {continue_from}: {error}") from error
    before = earlier.stream.at(state.step)
    if state.stream != before.stream.fingerprint():
        raise ConfigError(
            f"data.continue_from = {continue_from}: {checkpoint} was trained on another stream of samples than the "
            "run directory around it describes\n  restore the run directory, or name another checkpoint"
        )
    start = carried_ordinals(earlier.stream.ordinals(state.step), config.data.new_text)
    _check_same_windows(continue_from, config, before.stream, start)
    logger.info(
        "the data goes on from %s: %s",
        checkpoint,
        ", ".join(f"{name} {start[name]}" for name in sources if start.get(name)),
    )
    if changed := _changed_text(before.plan, plan, start):
        logger.warning(
            "the text of %s is not that of %s: each goes on at its ordinal, so the windows before that place of "
            "the new order are passed over, seen or not (data.new_text starts a language anew)",
            ", ".join(changed),
            continue_from,
        )
    new_text = tuple(sorted(set(config.data.new_text)))
    return PhaseStart(Path(os.path.abspath(continue_from)), checkpoint.name, new_text, start)


def _check_same_windows(
    continue_from: Path, config: RunConfig, earlier: SampleStream, start: dict[str, int]
) -> None:
    """Refuse what would make the same ordinal stand for other text.

    Raises:
        ConfigError: sequence length or seed differ.
    """
    now, before = config.in_phase(0).data.sequence_length, earlier.sequence_length
    if now != before:
        language, ordinal = max(start.items(), key=lambda item: item[1])
        whole, rest = divmod(ordinal * before, now)
        raise ConfigError(
            f"data.sequence_length = {now} is not that of {continue_from}, {before}: an ordinal counts windows, and "
            f"windows of another length are cut and ordered anew ({language}: {ordinal} * {before} = "
            f"{ordinal * before} = {whole} * {now} + {rest} tokens)\n"
            f"  use {before}, or leave out data.continue_from: every language then starts at its first window"
        )
    if config.training.seed != earlier.seed:
        raise ConfigError(
            f"training.seed = {config.training.seed} is not that of {continue_from}, {earlier.seed}: the seed "
            "orders the windows of an epoch, so the rest of a begun epoch would not be the windows not yet seen\n"
            f"  use {earlier.seed}, or leave out data.continue_from"
        )


def _changed_text(earlier: BlendPlan, plan: BlendPlan, start: dict[str, int]) -> list[str]:
    """Languages with a place to go on from whose training shards are not those of the earlier run."""
    before = {source.name: _contents(source) for source in earlier.sources}
    return [
        source.name
        for source in plan.sources
        if start.get(source.name) and before.get(source.name, _contents(source)) != _contents(source)
    ]


def _contents(source: BlendSource) -> list[tuple[int, str, str]]:
    return [(shard.tokens, shard.idx_sha256, shard.bin_digest) for shard in source.shards]
