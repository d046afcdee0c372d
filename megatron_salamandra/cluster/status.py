"""What a run is doing, from its directory: on any machine that sees it, without asking a scheduler."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.cluster.control import Asked, ControlFiles
from megatron_salamandra.cluster.round_book import RoundBook
from megatron_salamandra.cluster.rounds import Action, Cause, Round
from megatron_salamandra.cluster.run_state import Pace, last_step, pace, saved_step
from megatron_salamandra.config import load_run_config
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.run_directory import RunDirectory, read_events, read_owner

_INCIDENTS_SHOWN = 5


class NoRun(UserError):
    """The path is no run directory, or the run does not run."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Status:
    """A run as its directory tells it.

    Attributes:
        state: running, finished, waiting (for its next round), stopped, or never started.
        owner: who trains, in words; None if nobody does.
        beat_seconds: since the last step.
        steps: length of the run.
        rounds: all of them.
        asked: a stop that was asked for and not followed yet.
    """

    state: str
    owner: str | None
    step: int
    saved: int
    steps: int
    beat_seconds: float | None
    pace: Pace
    rounds: tuple[Round, ...]
    asked: Asked | None

    @property
    def left_seconds(self) -> float | None:
        """Until the last step, at the pace of the last ones; None if that is not known."""
        if self.state != "running" or self.pace.step_seconds is None:
            return None
        return (self.steps - self.step) * self.pace.step_seconds


def run_status(path: Path) -> Status:
    """Look at a run.

    Raises:
        NoRun: there is no run in ``path``.
    """
    directory = RunDirectory(path)
    if not directory.config.is_file():
        raise NoRun(f"{path}: no run here, {directory.config.name} is missing\n  name a run directory")
    steps = load_run_config(str(directory.config)).total_steps
    owner, saved = read_owner(directory), saved_step(directory)
    rounds = tuple(RoundBook(path).read())
    control = ControlFiles(path)
    beat = control.last_beat()
    lives = owner is not None and owner.lives is not False
    return Status(
        state=_state(directory, lives=lives, finished=saved >= steps, rounds=rounds),
        owner=owner.description if owner is not None and lives else None,
        step=last_step(directory),
        saved=saved,
        steps=steps,
        beat_seconds=None if beat is None else max(0.0, time.time() - beat),
        pace=pace(directory),
        rounds=rounds,
        asked=control.asked("stop"),
    )


def _state(directory: RunDirectory, *, lives: bool, finished: bool, rounds: tuple[Round, ...]) -> str:
    if lives:
        return "running"
    if finished:
        return "finished"
    if rounds and rounds[-1].decision.action is not Action.END:
        return "waiting"
    return "stopped" if read_events(directory.events) else "never started"


def status_text(status: Status) -> str:
    """The status for people, a few lines."""
    lines = [f"{status.state}{f', by {status.owner}' if status.owner else ''}"]
    share = status.step / status.steps if status.steps else 1.0
    lines.append(f"step {status.step:,} of {status.steps:,} ({share:.1%}), saved {status.saved:,}")
    if status.pace.step_seconds is not None:
        rate = status.pace.tokens_per_second or 0.0
        save = "" if status.pace.save_seconds is None else f", last save {status.pace.save_seconds:.1f} s"
        lines.append(f"{status.pace.step_seconds:.2f} s a step, {rate:,.0f} tokens/s{save}")
    if status.left_seconds is not None:
        lines.append(f"left {datetime.timedelta(seconds=round(status.left_seconds))} at this pace")
    if status.state == "running" and status.beat_seconds is not None:
        lines.append(f"last step {datetime.timedelta(seconds=round(status.beat_seconds))} ago")
    if status.asked is not None:
        lines.append(f"asked to stop: {status.asked.reason} ({status.asked.by})")
    incidents = [entry for entry in status.rounds if entry.outcome.cause not in (Cause.DONE, Cause.STOPPED)]
    if status.rounds:
        lines.append(f"{len(status.rounds)} rounds, {len(incidents)} incidents")
    lines += [f"  {entry.ended}  {entry.decision.reason}" for entry in incidents[-_INCIDENTS_SHOWN:]]
    return "\n".join(lines)


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
