"""What happened to a run besides its steps: its starts, what ended them, and what went wrong on the way.

Read from ``events.jsonl``, which the ranks write, and ``rounds.jsonl``, which the supervisor writes where there is one.
Kinds of events that are not known here are incidents as well, told with whatever belongs to them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from megatron_salamandra.cluster.rounds import Cause, Round
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_STOPPED
from megatron_salamandra.foundation.json_files import whole_in
from megatron_salamandra.run_directory import Event

_BEGINNINGS = ("start", "resume")
_ROUTINE = (*_BEGINNINGS, "checkpoint", "end", "phase", "change", "initialize")
_IN_ORDER = (Cause.DONE, Cause.STOPPED, Cause.REQUESTED)
_MOMENT = datetime.timedelta(seconds=10)
"""Clocks of hosts differ: an event so close to a round counts as of it."""


@dataclass(frozen=True)
class Session:
    """From one start of the ranks to its end.

    Attributes:
        started: when the ranks were ready; ``ended``: when they left, or the last sign of them.
        launched: when the supervisor started them; None without one.
        first_step: steps that were done before it.
        last_step: that it came to; None if that is not known.
        exit_code: None if the ranks left without a word, or have not left.
        reason: why it stopped or failed; empty if there is none.
    """

    started: datetime.datetime
    ended: datetime.datetime
    launched: datetime.datetime | None
    first_step: int
    last_step: int | None
    exit_code: int | None
    reason: str

    @property
    def ended_well(self) -> bool:
        """Whether the ranks left in order, with everything saved."""
        return self.exit_code in (EXIT_DONE, EXIT_STOPPED)


@dataclass(frozen=True)
class Incident:
    """Something that a person may want to know of.

    Attributes:
        time: None if the record has none.
        kind: crash, hang, node, skip, roll_back, ..., a few words.
        step: where the run was; None if that is not known.
        repeated_steps: that were trained again because of it.
        idle_seconds: from it to the next start; None if the run went on, or has not gone on yet.
    """

    time: datetime.datetime | None
    kind: str
    step: int | None
    text: str
    repeated_steps: int = 0
    idle_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "time": self.time.isoformat() if self.time else None}


@dataclass(frozen=True)
class History:
    """Starts and incidents of a run, oldest first."""

    sessions: tuple[Session, ...]
    incidents: tuple[Incident, ...]

    @property
    def repeated_steps(self) -> int:
        """Steps that were trained more than once, as far as the records know."""
        return sum(_repeated(before, after) for before, after in self._pairs())

    @property
    def idle_seconds(self) -> float:
        """Between the end of one start and the beginning of the next."""
        return sum(max(0.0, _idle(before, after)) for before, after in self._pairs())

    def _pairs(self) -> Iterator[tuple[Session, Session]]:
        return pairwise(self.sessions)


def run_history(events: Sequence[Event], rounds: Sequence[Round], *, lives: bool) -> History:
    """What happened to a run.

    Args:
        lives: whether the run runs, so that its last start has no end yet.
    """
    sessions = _sessions(events, rounds)
    found = [
        *_of_rounds(rounds, sessions),
        *_of_events(events, rounds, sessions),
        *_broken_off(sessions, rounds, lives),
    ]
    first = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return History(tuple(sessions), tuple(sorted(found, key=lambda incident: incident.time or first)))


def time_of(text: str) -> datetime.datetime | None:
    """The moment that an ISO 8601 text names, in UTC if it names no zone; None if it names none."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _sessions(events: Sequence[Event], rounds: Sequence[Round]) -> list[Session]:
    sessions: list[Session] = []
    for event in events:
        moment = time_of(event.time)
        if moment is None:
            continue
        if event.kind in _BEGINNINGS:
            step = _step(event.details) or 0
            if sessions and (reached := whole_in(event.details.get("reached"))) is not None:
                sessions[-1] = replace(sessions[-1], last_step=reached)
            sessions.append(Session(moment, moment, None, step, None, None, ""))
        elif sessions and sessions[-1].exit_code is None:
            sessions[-1] = _with(sessions[-1], event, moment)
    return [_with_round(session, rounds) for session in sessions]


def _with(session: Session, event: Event, moment: datetime.datetime) -> Session:
    session = replace(session, ended=max(session.ended, moment))
    if event.kind == "end":
        code = whole_in(event.details.get("exit_code"))
        return replace(session, exit_code=code, last_step=_step(event.details))
    if event.kind == "stop" or _is_fatal(event):
        reason = event.details.get("reason") or event.details.get("error") or ""
        return replace(session, reason=session.reason or str(reason))
    return session


def _with_round(session: Session, rounds: Sequence[Round]) -> Session:
    for entry in rounds:
        started, ended = time_of(entry.started), time_of(entry.ended)
        if started and ended and started - _MOMENT <= session.started <= ended + _MOMENT:
            return replace(
                session,
                launched=min(started, session.started),
                ended=max(session.ended, ended),
                last_step=entry.outcome.last_step if session.last_step is None else session.last_step,
            )
    return session


def _of_rounds(rounds: Sequence[Round], sessions: Sequence[Session]) -> Iterator[Incident]:
    for entry in rounds:
        outcome, ended = entry.outcome, time_of(entry.ended)
        if outcome.cause in _IN_ORDER:
            continue
        after = next((found for found in sessions if ended is not None and found.started > ended), None)
        repeated, idle = 0, None
        if after is not None and ended is not None:
            repeated = max(0, outcome.last_step - after.first_step)
            idle = (after.started - ended).total_seconds()
        yield Incident(ended, outcome.cause.value, outcome.last_step, entry.decision.reason, repeated, idle)


def _of_events(
    events: Sequence[Event], rounds: Sequence[Round], sessions: Sequence[Session]
) -> Iterator[Incident]:
    for event in events:
        if event.kind in _ROUTINE:
            continue
        moment = time_of(event.time)
        if _is_fatal(event) and _told_by_a_round(moment, rounds):
            continue
        details = {key: value for key, value in event.details.items() if key != "step"}
        repeated = 0
        kind = event.kind
        if kind == "failure" and "what" in details:
            kind = f"{details.pop('what')} failed"
        step = _step(event.details)
        if kind == "roll_back" and step is not None:
            repeated = max(0, step - 1 - (whole_in(details.get("to_step")) or 0))
        idle = _idle_after(moment, sessions) if event.kind == "stop" or _is_fatal(event) else None
        yield Incident(moment, kind.replace("_", " "), step, _text(details), repeated, idle)


def _idle_after(moment: datetime.datetime | None, sessions: Sequence[Session]) -> float | None:
    """From the end of the start that ``moment`` is of to the next one; None if there is none."""
    for before, after in pairwise(sessions):
        if moment is not None and before.started <= moment <= before.ended:
            return _idle(before, after)
    return None


def _broken_off(sessions: Sequence[Session], rounds: Sequence[Round], lives: bool) -> Iterator[Incident]:
    """Starts that ended without a word, and of which no supervisor has told."""
    for number, session in enumerate(sessions):
        after = sessions[number + 1] if number + 1 < len(sessions) else None
        if session.exit_code is not None or (after is None and lives) or session.reason:
            continue
        if session.launched is not None or _told_by_a_round(session.ended, rounds):
            continue
        text = "the ranks ended without a word: killed, or their host was lost"
        repeated = _repeated(session, after) if after else 0
        idle = _idle(session, after) if after else None
        yield Incident(session.ended, "broken off", session.last_step, text, repeated, idle)


def _is_fatal(event: Event) -> bool:
    return event.kind == "hang" or (event.kind == "failure" and "what" not in event.details)


def _told_by_a_round(moment: datetime.datetime | None, rounds: Sequence[Round]) -> bool:
    for entry in rounds:
        started, ended = time_of(entry.started), time_of(entry.ended)
        inside = started and ended and moment and started - _MOMENT <= moment <= ended + _MOMENT
        if inside and entry.outcome.cause not in _IN_ORDER:
            return True
    return False


def _repeated(before: Session, after: Session) -> int:
    return 0 if before.last_step is None else max(0, before.last_step - after.first_step)


def _idle(before: Session, after: Session) -> float:
    return (after.started - before.ended).total_seconds()


def _text(details: Mapping[str, Any]) -> str:
    """What belongs to an event, in words: a reason or an error alone, anything else with its name."""
    plain = [str(details[key]) for key in ("reason", "error", "message") if details.get(key)]
    named = [
        f"{key.replace('_', ' ')} {_value(value)}"
        for key, value in details.items()
        if key not in ("reason", "error", "message") and value not in (None, "", 0, [], {})
    ]
    return "; ".join([*plain, ", ".join(named)] if named else plain)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items())
    return str(value)


def _step(details: Mapping[str, Any]) -> int | None:
    return whole_in(details.get("step"))
