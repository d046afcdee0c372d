"""What a run has drawn from each source, against what the blends of its phases planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from megatron_salamandra.config import RunConfig
from megatron_salamandra.report.step_records import StepRecords
from megatron_salamandra.run_directory import CheckpointState, RunDirectory
from salamandra_data.blend_plan import BlendPlan


@dataclass(frozen=True)
class SourceSeen:
    """One source, or a language where sources are not told apart.

    Attributes:
        tokens: drawn from it; ``share``: of all tokens drawn.
        planned_share: of the tokens up to this step, by the blends of the phases; None if a blend cannot be read.
        epochs: walks over its text.
    """

    source: str
    language: str
    tokens: int
    share: float
    planned_share: float | None
    epochs: float


@dataclass(frozen=True)
class TextSeen:
    """The ledger of a run at ``step``, most tokens first."""

    step: int
    sources: tuple[SourceSeen, ...]


def text_seen(
    steps: StepRecords,
    state: CheckpointState | None,
    config: RunConfig | None,
    plans: Mapping[int, BlendPlan],
) -> TextSeen | None:
    """The newest ledger, of the metrics or of a checkpoint; None if there is none.

    Args:
        state: of the newest checkpoint.
        plans: blends by number of their phase, as far as they can be read.
    """
    entries: dict[str, tuple[str, int, float]] = {}
    step = steps.seen_at
    languages = {source.name: source.language for plan in plans.values() for source in plan.sources}
    if state is not None and state.step > step:
        step = state.step
        entries = {entry.source: (entry.language, entry.tokens, entry.epochs) for entry in state.ledger}
    else:
        seen = steps.sources or steps.languages
        entries = {name: (languages.get(name, name), *numbers) for name, numbers in seen.items()}
    if not entries:
        return None
    planned = _planned(step, config, plans)
    total = sum(tokens for _, tokens, _ in entries.values())
    found = [
        SourceSeen(
            name,
            language,
            tokens,
            tokens / total if total else 0.0,
            planned.get(name, 0.0) if planned else None,
            epochs,
        )
        for name, (language, tokens, epochs) in entries.items()
    ]
    return TextSeen(step, tuple(sorted(found, key=lambda one: (-one.tokens, one.source))))


def read_plans(directory: RunDirectory, config: RunConfig) -> dict[int, BlendPlan]:
    """Blends as they were frozen when their phases began; a later phase has none yet.

    Raises:
        DataError: one is damaged; names the file.
    """
    found = {}
    for number, name in enumerate(config.phase_names):
        path = directory.phase_blend_lock(number, name)
        if path.exists():
            found[number] = BlendPlan.parse(path)
        elif number and number - 1 in found and config.in_phase(number).data.blend == config.data.blend:
            found[number] = found[0]
    return found


def _planned(step: int, config: RunConfig | None, plans: Mapping[int, BlendPlan]) -> dict[str, float] | None:
    """Share of each source in the tokens of the first ``step`` steps."""
    if config is None or not plans:
        return None
    timeline = config.timeline
    tokens: dict[str, float] = {}
    for number in range(len(config.phase_names)):
        first = timeline.tokens(min(step, timeline.first_step(number)))
        drawn = timeline.tokens(min(step, timeline.last_step(number))) - first
        if drawn and number not in plans:
            return None
        if drawn:
            plan = plans[number]
            for source in plan.sources:
                share = source.weight / plan.total_weight
                tokens[source.name] = tokens.get(source.name, 0.0) + share * drawn
    total = sum(tokens.values())
    return {name: value / total for name, value in tokens.items()} if total else None
