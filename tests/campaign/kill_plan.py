"""Which kills a campaign makes: drawn from a seed, so that a number names a case for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from disturbed_runs import SAVE_EVERY, STEPS, VALIDATE_EVERY
from kill_points import KillPoint

STAGES: dict[str, tuple[str, ...]] = {
    "start": ("self", "ranks", "launcher", "all"),
    "step": ("self", "ranks", "launcher", "all"),
    "save": ("rank", "ranks", "launcher", "all"),
    "writer of a save": ("self", "writers"),
    "metrics": ("self", "ranks", "all"),
    "validation": ("self", "ranks", "all"),
    "resume": ("self", "ranks", "all"),
    "end": ("self", "ranks", "launcher", "all"),
}
"""Who may be killed in which stage of a run."""
_TOUCHES_OF_A_SAVE = {0: 20, 1: 3}
"""So often a rank's writers touch files of a save, or more."""


@dataclass(frozen=True)
class KillCase:
    """One run of a campaign.

    Attributes:
        points: at each of which one start is killed, in turn; a last one goes on in peace.
        launcher: ``train`` or ``torchrun``.
        background: whether saves are written in the background.
    """

    number: int
    stage: str
    launcher: str
    background: bool
    points: tuple[KillPoint, ...]

    @property
    def victims(self) -> str:
        """Of the first kill."""
        return self.points[0].victims


def kill_case(seed: int, number: int, books: Path, *, launchers: bool = True) -> KillCase:
    """Case ``number`` of a campaign; stages and victims come in turn, the rest is drawn.

    Args:
        books: directory for what the kills note.
        launchers: whether there is one to be killed.
    """
    draw = random.Random(f"{seed}/{number}")
    stage = list(STAGES)[number % len(STAGES)]
    possible = [who for who in STAGES[stage] if launchers or who not in ("launcher", "all")]
    victims = possible[number // len(STAGES) % len(possible)]
    points = [_DRAWN[stage](draw, victims)]
    if stage == "resume":  # needs a run that has something to go on from
        points.insert(0, _in_a_step(draw, "self", least=SAVE_EVERY + 2))
    elif draw.random() < 0.25:  # another one before the next save
        points.append(_in_a_step(draw, draw.choice(("self", "ranks"))))
    return KillCase(
        number,
        stage,
        draw.choice(("train", "train", "torchrun")),
        draw.random() < 0.6,
        tuple(replace(point, book=str(books / f"{number}-{turn}")) for turn, point in enumerate(points)),
    )


def _in_the_start(draw: random.Random, victims: str) -> KillPoint:
    where = draw.choice(("joining", "opening the data", "building", "first weights", ""))
    return _point(draw, victims, part="start", detail=where)


def _in_a_step(draw: random.Random, victims: str, least: int = 1) -> KillPoint:
    part = draw.choice(("data", "forward", "backward", "reduce", "decide", "update", "callbacks"))
    return _point(draw, victims, part=part, step=draw.randrange(least, STEPS + 1))


def _in_a_save(draw: random.Random, victims: str) -> KillPoint:
    """Anywhere in a save, counted in touches of files, from its directory to the deletion of old ones."""
    if draw.random() < 0.2:
        return _point(draw, victims, part="save", nth=draw.randrange(1, 5))
    rank = draw.choice((0, 0, 0, 1))
    return _point(
        draw,
        victims,
        rank=rank,
        file=f"step-{SAVE_EVERY * draw.randrange(1, STEPS // SAVE_EVERY + 1):08d}",
        nth=draw.randrange(1, _TOUCHES_OF_A_SAVE[rank] + 1),
        in_writer=True,
    )


def _writer(draw: random.Random, victims: str) -> KillPoint:
    if victims == "self":
        return _in_a_save(draw, victims)
    part = draw.choice(("data", "forward", "update", "save"))
    step = SAVE_EVERY * draw.randrange(1, STEPS // SAVE_EVERY) + (part != "save")
    return _point(draw, victims, part=part, step=step)


def _between_metrics(draw: random.Random, victims: str) -> KillPoint:
    file = draw.choice(("metrics.jsonl", "events.jsonl", "validation.jsonl", "units.json", "/tensorboard"))
    # TensorBoard's file and units.json are opened once.
    nth = 1 if file in ("units.json", "/tensorboard") else draw.randrange(1, 9)
    return _point(draw, victims, rank=0, file=file, nth=nth, later=draw.randrange(4))


def _in_validation(draw: random.Random, victims: str) -> KillPoint:
    step = VALIDATE_EVERY * draw.randrange(1, STEPS // VALIDATE_EVERY + 1)
    return _point(draw, victims, part="validation", step=step, nth=draw.randrange(1, 5))


def _in_the_resume(draw: random.Random, victims: str) -> KillPoint:
    if draw.random() < 0.5:
        return _point(
            draw, victims, part=draw.choice(("load", "start", "callbacks")), nth=draw.randrange(1, 3)
        )
    file = draw.choice(("manifest.json", "metrics.jsonl", "validation.jsonl", "/tensorboard", "events.jsonl"))
    return _point(draw, victims, rank=0, file=file, later=draw.randrange(6))


def _at_the_end(draw: random.Random, victims: str) -> KillPoint:
    if draw.random() < 0.5:
        return _point(draw, victims, part="end")
    return _point(
        draw,
        victims,
        rank=0,
        file=draw.choice(("report.html", "report.html", ".owner")),
        nth=draw.randrange(1, 3),
    )


def _point(draw: random.Random, victims: str, *, rank: int | None = None, **where: object) -> KillPoint:
    """A point of either rank, unless only one comes there."""
    return KillPoint("", draw.randrange(2) if rank is None else rank, victims, **where)  # type: ignore[arg-type]


_DRAWN: dict[str, Callable[[random.Random, str], KillPoint]] = {
    "start": _in_the_start,
    "step": _in_a_step,
    "save": _in_a_save,
    "writer of a save": _writer,
    "metrics": _between_metrics,
    "validation": _in_validation,
    "resume": _in_the_resume,
    "end": _at_the_end,
}
