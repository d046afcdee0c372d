"""What of its phases a resumed run may not change: those it has trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.timeline import Timeline


def check_trained_phases(directory: Path, saved: RunConfig, config: RunConfig, trained: Timeline) -> None:
    """Refuse another beginning of the run. What was not trained on yet may change, and the last phase may be longer.

    Args:
        directory: of the checkpoint.
        saved: the configuration that it was trained with.
        config: of the run now.
        trained: the steps that it has done.
    Raises:
        ConfigError: a phase that was trained on is another one; names its key.
    """
    last = trained.segments[-1].phase
    for number in range(last + 1):
        for key, was, now in _differences(saved, config, trained, number, finished=number < last):
            if was != now:
                raise ConfigError(
                    f"{key} = {_shown(now)} is not what {directory} was trained with: {_shown(was)}\n"
                    "  restore it, or start a new run_dir; later phases may be changed and added, and the last one "
                    "made longer"
                )


def _differences(
    saved: RunConfig, config: RunConfig, trained: Timeline, number: int, *, finished: bool
) -> Iterator[tuple[str, Any, Any]]:
    """(key, before, now) of what decides a phase."""
    names = config.phase_names
    if number >= len(names):
        yield "phases", ", ".join(trained.phases), ", ".join(names)
        return
    where = f"phases.{names[number]}." if config.phases else ""
    if config.phases and saved.phases:
        yield "phases", ", ".join(trained.phases[: number + 1]), ", ".join(names[: number + 1])
    before, now = saved.in_phase(number), config.in_phase(number)
    segments = [segment for segment in trained.segments if segment.phase == number]
    batch_key = f"{where}global_batch_size" if where else "training.global_batch_size"
    yield batch_key, segments[-1].batch_size, now.training.global_batch_size
    length_key = f"{where}sequence_length" if where else "data.sequence_length"
    yield length_key, segments[-1].sequence_length, now.data.sequence_length
    yield (
        f"{where}rope_scaling" if where else "model.rope_scaling",
        before.model.rope_scaling,
        now.model.rope_scaling,
    )
    if number and saved.phases:
        was, is_now = list(saved.phases.values())[number], list(config.phases.values())[number]
        yield f"{where}new_text", was.new_text, is_now.new_text
        yield f"{where}learning_rate", was.learning_rate, is_now.learning_rate
    done = sum(segment.steps for segment in segments)
    if finished:
        yield f"{where}steps", done, config.phase_steps(number)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if hasattr(value, "model_dump"):
        return str(value.model_dump(exclude_none=True))
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
