"""Everything that a report says of a run, read once. What is missing or damaged is noted and left out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from megatron_salamandra.cluster import History, Round, RoundBook, Status, run_history, run_status
from megatron_salamandra.config import RunConfig, learning_rate_of, load_run_config
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import read_json_object
from megatron_salamandra.foundation.yaml_files import read_yaml_mapping
from megatron_salamandra.report.checkpoints import SavedStep, saved_steps
from megatron_salamandra.report.energy import EnergyEstimate, estimate_energy
from megatron_salamandra.report.languages import LanguageCurve, walk_validations
from megatron_salamandra.report.plan_check import Comparison, plan_against_reality, ranks_of
from megatron_salamandra.report.step_records import StepRecords, walk_steps
from megatron_salamandra.report.text_seen import TextSeen, read_plans, text_seen
from megatron_salamandra.report.wall_time import WallTime, where_time_went
from megatron_salamandra.run_directory import (
    CheckpointState,
    Event,
    MetricsLog,
    RunDirectory,
    ValidationLog,
    latest_checkpoint,
    read_events,
    read_state,
)
from salamandra_data.blend_plan import BlendPlan

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class PhaseProgress:
    """One phase, planned and done.

    Attributes:
        rates: learning rate of its first and last step.
    """

    name: str
    first_step: int
    steps: int
    tokens: int
    done_steps: int
    done_tokens: int
    batch_size: int
    sequence_length: int
    rates: tuple[float, float]


@dataclass
class RunFacts:
    """What is known of a run.

    Attributes:
        notes: what is missing or cannot be read, a sentence each, with the file's name.
    """

    path: Path
    made: datetime.datetime
    status: Status
    config: RunConfig | None = None
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    rounds: Sequence[Round] = ()
    past: History = field(default_factory=lambda: History((), ()))
    steps: StepRecords = field(default_factory=lambda: walk_steps(()))
    languages: list[LanguageCurve] = field(default_factory=list)
    averages: list[LanguageCurve] = field(default_factory=list)
    seen: TextSeen | None = None
    phases: list[PhaseProgress] = field(default_factory=list)
    checkpoints: list[SavedStep] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    energy: EnergyEstimate = field(
        default_factory=lambda: EnergyEstimate(None, None, None, "not known: nothing is recorded")
    )
    time: WallTime = field(default_factory=lambda: WallTime(None, None, 0.0, ()))
    notes: list[str] = field(default_factory=list)


def read_run(path: Path) -> RunFacts:
    """Read a run directory; of its records of steps each is read once and none is kept.

    Raises:
        NoRun: there is no run in ``path``.
    """
    directory = RunDirectory(path)
    now = datetime.datetime.now(datetime.UTC)
    facts = RunFacts(path, now, run_status(path))
    attempt = _Attempts(facts.notes)
    for file, what in (
        (directory.config, "the configuration, and what follows from it"),
        (directory.metrics, "all curves"),
        (directory.events, "starts, incidents and saves"),
        (directory.environment, "versions and hosts"),
    ):
        if not file.is_file():
            facts.notes.append(f"{file.name} is missing: {what} cannot be shown")
    if directory.config.is_file():
        facts.config_text = attempt(lambda: directory.config.read_text("utf-8", "backslashreplace"), "")
        facts.config = attempt(lambda: load_run_config(str(directory.config)), None)
    if directory.environment.is_file():
        facts.environment = attempt(lambda: read_json_object(directory.environment), {})
    facts.events = attempt(lambda: read_events(directory.events), [])
    facts.rounds = attempt(RoundBook(path).read, [])
    facts.past = run_history(facts.events, facts.rounds, lives=facts.status.state == "running")
    facts.steps = attempt(lambda: walk_steps(MetricsLog(directory.metrics).records()), facts.steps)
    scores = ValidationLog(directory.validation)
    nothing: tuple[list[LanguageCurve], list[LanguageCurve]] = ([], [])
    facts.languages, facts.averages = attempt(lambda: walk_validations(scores.records()), nothing)
    facts.checkpoints = attempt(lambda: saved_steps(directory, facts.events), [])
    alive = facts.status.state == "running"
    facts.time = where_time_went(facts.past, facts.steps, now if alive else None)
    _read_what_depends(facts, directory, attempt)
    return facts


def _read_what_depends(facts: RunFacts, directory: RunDirectory, attempt: _Attempts) -> None:
    config, steps = facts.config, facts.steps
    ranks = ranks_of(facts.environment)
    newest = latest_checkpoint(directory.checkpoints)
    state: CheckpointState | None = None
    if newest is not None:
        state = attempt(lambda: read_state(newest), None)
    plans: dict[int, BlendPlan] = {}
    if config is not None:
        plans = attempt(lambda: read_plans(directory, config), plans)
    facts.seen = attempt(lambda: text_seen(steps, state, config, plans), None)
    if config is not None:
        facts.phases = _phases(config, max(steps.last_step, state.step if state else 0))
        facts.comparisons = attempt(lambda: plan_against_reality(config, ranks, steps), [])
    profile = _newest_profile(directory)
    contents: dict[str, Any] = {}
    if profile is not None:
        contents = attempt(lambda: read_yaml_mapping(profile), contents)
    facts.energy = estimate_energy(facts.environment, contents, ranks, facts.time.running_seconds)


class _Attempts:
    """Does what may fail because of what a run has left, and notes why."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def __call__(self, action: Callable[[], _Found], otherwise: _Found) -> _Found:
        try:
            return action()
        except UserError as error:
            self._notes.append(str(error))
        except OSError as error:
            self._notes.append(f"{error.filename}: cannot be read: {error.strerror}")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            # A record that holds what no version writes.
            self._notes.append(
                f"a part is left out, its records make no sense: {type(error).__name__}: {error}"
            )
        return otherwise


def _phases(config: RunConfig, done: int) -> list[PhaseProgress]:
    timeline = config.timeline
    found = []
    for number, name in enumerate(config.phase_names):
        part = config.in_phase(number)
        first, last = timeline.first_step(number), timeline.last_step(number)
        reached = min(max(done, first), last)
        found.append(
            PhaseProgress(
                name,
                first + 1,
                last - first,
                timeline.tokens(last) - timeline.tokens(first),
                reached - first,
                timeline.tokens(reached) - timeline.tokens(first),
                part.training.global_batch_size,
                part.data.sequence_length,
                (learning_rate_of(config, first + 1), learning_rate_of(config, last)),
            )
        )
    return found


def _newest_profile(directory: RunDirectory) -> Path | None:
    found = sorted(directory.launches.glob("*/profile.yaml"))
    return found[-1] if found else None
