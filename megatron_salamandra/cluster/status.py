"""What a run is doing, from its directory: on any machine that sees it, without asking a scheduler."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.cluster.control import Asked, ControlFiles, JobNote
from megatron_salamandra.cluster.history import History, Incident, run_history
from megatron_salamandra.cluster.round_book import RoundBook
from megatron_salamandra.cluster.rounds import Action, Round
from megatron_salamandra.cluster.run_state import Pace, pace_of, saved_step
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_USAGE
from megatron_salamandra.foundation.json_files import number_in, whole_in
from megatron_salamandra.run_directory import (
    Event,
    MetricsLog,
    RunDirectory,
    is_silent,
    latest_checkpoint,
    read_events,
    read_owner,
    read_state,
)

_INCIDENTS_SHOWN = 5
_SAVES_SHOWN = 3
_TEXT_SHOWN = 300


class NoRun(UserError):
    """The path is no run directory, or the run does not run."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Save:
    """A checkpoint that was completed.

    Attributes:
        time: of its end, as in ``events.jsonl``.
        seconds: that it took; None if that was not recorded.
    """

    step: int
    time: str
    seconds: float | None


@dataclass(frozen=True)
class Status:
    """A run as its directory tells it.

    Attributes:
        state: running, finished, waiting (for its next round), stopped, failed, lost (its host gives no sign of life),
            or never started.
        owner: who trains, in words; None if nobody does.
        step, saved: the last step that is recorded, and the last that is saved; 0 before the first.
        steps: length of the run; None if that cannot be read.
        loss, tokens: of the last step; None before the first.
        beat_seconds: since rank 0 came to where it is.
        saves: the last ones, oldest first.
        rounds: number of them.
        incidents: all of them, oldest first.
        asked: a stop that was asked for and not followed yet.
        job: that has the run, with its time limit; None if it does not run in a job.
    """

    state: str
    owner: str | None
    step: int
    saved: int
    steps: int | None
    loss: float | None
    tokens: int | None
    beat_seconds: float | None
    pace: Pace
    saves: tuple[Save, ...]
    rounds: int
    incidents: tuple[Incident, ...]
    asked: Asked | None
    job: JobNote | None

    @property
    def left_seconds(self) -> float | None:
        """Until the last step, at the pace of the last ones; None if that is not known."""
        if self.state != "running" or self.pace.step_seconds is None or self.steps is None:
            return None
        return max(0, self.steps - self.step) * self.pace.step_seconds

    @property
    def limit_seconds(self) -> float | None:
        """Until the time limit of the job; None if there is none, or the run does not run."""
        if self.state != "running" or self.job is None or self.job.ends is None:
            return None
        return max(0.0, self.job.ends - time.time())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times are ISO 8601 in UTC."""
        values = asdict(self)
        values["incidents"] = [incident.to_dict() for incident in self.incidents]
        return {**values, "left_seconds": self.left_seconds, "limit_seconds": self.limit_seconds}


def run_status(path: Path) -> Status:
    """Look at a run, of this version or an earlier one; what cannot be read of it is left out.

    Raises:
        NoRun: there is no run in ``path``.
    """
    directory = RunDirectory(path)
    events, rounds = read_events(directory.events), RoundBook(path).read()
    control = ControlFiles(path)
    owner, saved = read_owner(directory), saved_step(directory)
    last = MetricsLog(directory.metrics).recent()
    if not (directory.config.is_file() or events or rounds or owner or saved or last):
        raise NoRun(f"{path}: no run here, {directory.config.name} is missing\n  name a run directory")
    beat = None
    with contextlib.suppress(OSError):
        beat = control.last_beat()
    steps = _length(directory, events)
    lives = owner is not None and owner.lives is not False
    lost = lives and owner is not None and owner.lives is None and is_silent(directory)
    lives = lives and not lost
    past = run_history(events, rounds, lives=lives)
    step = last[-1].step if last else saved
    job = control.job()
    return Status(
        state="running" if lives else "lost" if lost else _state(past, rounds, step, saved, steps),
        owner=owner.description if owner is not None and (lives or lost) else None,
        step=step,
        saved=saved,
        steps=steps,
        loss=number_in(last[-1].values.get("loss")) if last else None,
        tokens=whole_in(last[-1].values.get("tokens")) if last else None,
        beat_seconds=None if beat is None else max(0.0, time.time() - beat.time),
        pace=pace_of(last, events),
        saves=_saves(events)[-_SAVES_SHOWN:],
        rounds=len(rounds),
        incidents=past.incidents,
        asked=control.asked("stop"),
        job=job if owner is not None and job is not None and job.job == owner.job else None,
    )


def _length(directory: RunDirectory, events: Sequence[Event]) -> int | None:
    """Steps of the run, as its last start said.

    Of one that said nothing (it never started, or with an earlier version): of its configuration, or, where this
    version cannot read that, of its newest checkpoint.
    """
    for event in reversed(events):
        if event.kind in ("start", "resume"):
            if (said := whole_in(event.details.get("steps"))) is not None:
                return said
            break
    if directory.config.is_file():
        # Not at the top: models of configurations take longer to make than all the rest here.
        from megatron_salamandra.config import load_run_config

        with contextlib.suppress(UserError):
            return load_run_config(str(directory.config)).total_steps
    newest = latest_checkpoint(directory.checkpoints)
    if newest is not None:
        with contextlib.suppress(UserError):
            return read_state(newest).total_steps
    return None


def _state(past: History, rounds: Sequence[Round], step: int, saved: int, steps: int | None) -> str:
    last = past.sessions[-1] if past.sessions else None
    done = last is not None and last.exit_code == EXIT_DONE
    if steps is not None and (saved >= steps or (done and step >= steps)):
        return "finished"
    if rounds and rounds[-1].decision.action is not Action.END:
        return "waiting"
    if rounds and rounds[-1].decision.exit_code != EXIT_DONE:
        return "failed"
    if last is None:
        return "never started"
    return "stopped" if last.ended_well else "failed"


def _saves(events: Sequence[Event]) -> tuple[Save, ...]:
    found = (event for event in events if event.kind == "checkpoint")
    return tuple(
        Save(step, event.time, number_in(event.details.get("seconds")))
        for event in found
        if (step := whole_in(event.details.get("step"))) is not None
    )


def status_text(status: Status) -> str:
    """The status for people, a few lines."""
    lines = [f"{status.state}{f', by {status.owner}' if status.owner else ''}"]
    length = "" if status.steps is None else f" of {status.steps:,}"
    share = f" ({status.step / status.steps:.1%})" if status.steps else ""
    lines.append(f"step {status.step:,}{length}{share}, saved {status.saved:,}")
    if status.loss is not None:
        tokens = "" if status.tokens is None else f" after {status.tokens:,} tokens"
        lines.append(f"loss {status.loss:.4f}{tokens}")
    if status.pace.step_seconds is not None:
        rate = status.pace.tokens_per_second
        lines.append(
            f"{status.pace.step_seconds:.2f} s a step{'' if rate is None else f', {rate:,.0f} tokens/s'}"
        )
    if status.left_seconds is not None:
        lines.append(f"left {_span(status.left_seconds)} at this pace")
    if status.limit_seconds is not None and status.job is not None:
        lines.append(f"time limit of job {status.job.job} in {_span(status.limit_seconds)}")
    if status.state in ("running", "lost") and status.beat_seconds is not None:
        lines.append(f"last sign of life {_span(status.beat_seconds)} ago")
    if status.asked is not None:
        lines.append(f"asked to stop: {status.asked.reason} ({status.asked.by})")
    if status.saves:
        lines.append("last saves: " + ", ".join(_save_text(save) for save in status.saves))
    if status.rounds or status.incidents:
        rounds = f"{status.rounds} rounds, " if status.rounds else ""
        lines.append(f"{rounds}{len(status.incidents)} incidents")
    lines += [f"  {_incident_text(incident)}" for incident in status.incidents[-_INCIDENTS_SHOWN:]]
    return "\n".join(lines)


def _save_text(save: Save) -> str:
    return f"step {save.step:,}{'' if save.seconds is None else f' in {save.seconds:.1f} s'}"


def _incident_text(incident: Incident) -> str:
    moment = incident.time.isoformat(" ", "seconds") if incident.time else "?"
    step = "" if incident.step is None else f" at step {incident.step:,}"
    text = " ".join(incident.text.split())
    shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]} …"
    return f"{moment}  {incident.kind}{step}: {shown}"


def _span(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def check_runs(path: Path) -> None:
    """Check that ranks of a run are at work.

    Raises:
        NoRun: they are not, as far as the directory tells.
    """
    status = run_status(path)
    if status.state not in ("running", "lost"):  # whose host gives no sign of life may still hang there
        raise NoRun(f"{path} does not run: {status.state}\n  there are no ranks to ask")


def ask_run(path: Path, kind: str, reason: str) -> None:
    """Leave a request for a run that runs.

    Args:
        kind: ``stop`` or ``save``.
    Raises:
        NoRun: nobody would follow it.
    """
    status = run_status(path)
    waiting = status.state == "waiting" and kind == "stop"
    if status.state != "running" and not waiting:
        raise NoRun(f"{path} does not run: {status.state}\n  there is nothing to {kind}")
    ControlFiles(path).ask("stop" if kind == "stop" else "save", reason)
