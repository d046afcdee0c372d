"""Checks of the phases of a run: of their own keys, and of the whole configuration as it is in each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from megatron_salamandra.config.errors import Problem

if TYPE_CHECKING:
    from megatron_salamandra.config.phases import PhaseSection
    from megatron_salamandra.config.run_config import RunConfig

_NAME = re.compile(r"[A-Za-z_]\w*")
_KEYS = {
    "data.blend": "blend",
    "data.sequence_length": "sequence_length",
    "model.rope_scaling": "rope_scaling",
    "training.global_batch_size": "global_batch_size",
    "training.micro_batch_size": "micro_batch_size",
}
"""Where a key of the other sections stands in a phase that gives it."""
_RATE_KEYS = ("lr", "min_lr", "schedule", "warmup_steps", "decay_steps")


def phase_problems(config: RunConfig, of_sections: Callable[[RunConfig], Iterator[Problem]]) -> list[Problem]:
    """All contradictions in and between phases.

    Args:
        of_sections: the checks of a run without phases.
    """
    problems = [*_own_problems(config)]
    if not problems:
        for number in range(len(config.phases)):
            found = [of_phase(problem, config, number) for problem in of_sections(config.in_phase(number))]
            # What has nothing to do with the phase is said once.
            problems += [problem for problem in found if problem not in problems]
    return problems or [*_schedule_problems(config)]


def of_phase(problem: Problem, config: RunConfig, number: int) -> Problem:
    """A problem of the configuration in one phase, under the keys that the phase has for it."""
    if not config.phases:
        return problem
    name, phase = list(config.phases.items())[number]
    given = {key: f"phases.{name}.{own}" for key, own in _KEYS.items() if getattr(phase, own) is not None}
    keys = (problem.key, *problem.involved)
    if not any(key in given for key in keys):
        return problem
    text, remedy = problem.text, problem.remedy
    for key, own in given.items():
        text, remedy = text.replace(key, own), remedy.replace(key, own)
    return replace(
        problem,
        key=given.get(problem.key, problem.key),
        text=text,
        remedy=remedy,
        involved=tuple(given.get(key, key) for key in problem.involved),
    )


def _own_problems(config: RunConfig) -> Iterator[Problem]:
    for key in ("steps", "tokens"):
        if (value := getattr(config.training, key)) is not None:
            yield Problem(
                key=f"training.{key}",
                text=f"training.{key} = {value} has no effect: the run has phases, each with a length of its own",
                remedy=f"set it to null, and give phases.{next(iter(config.phases))}.{key}",
                involved=("phases",),
            )
    for number, (name, phase) in enumerate(config.phases.items()):
        where = f"phases.{name}"
        if _NAME.fullmatch(name) is None:
            yield Problem(
                key=where,
                text=f"phases has the name {name!r}, which cannot be a part of a key",
                remedy="use letters, digits and _, such as corpus_a",
            )
        yield from _length_problems(where, phase)
        yield from _join_problems(where, phase, first=number == 0)
        if number == 0 and phase.new_text:
            yield Problem(
                key=f"{where}.new_text",
                text=f"{where}.new_text = {', '.join(phase.new_text)} has no effect in the first phase: every source "
                "starts at its first window, or where data.continue_from left it",
                remedy="leave it out; data.new_text is for data.continue_from",
            )
        expected = phase.expected
        if expected is not None and (expected.factors is None) == (expected.temperature is None):
            yield Problem(
                key=f"{where}.expected",
                text=f"{where}.expected needs exactly one of factors and temperature",
                remedy="name a file of factors, or a temperature such as 3.33",
            )


def _length_problems(where: str, phase: PhaseSection) -> Iterator[Problem]:
    if (phase.steps is None) == (phase.tokens is None):
        both = "are both set" if phase.steps is not None else "are both missing"
        yield Problem(
            key=f"{where}.steps" if phase.steps is not None else where,
            text=f"{where}.steps and {where}.tokens {both}",
            remedy="give exactly one of them; a later file or an override of one replaces the other",
        )


def _join_problems(where: str, phase: PhaseSection, *, first: bool) -> Iterator[Problem]:
    rate = phase.learning_rate
    if first and rate.join == "rewarm":
        yield Problem(
            key=f"{where}.learning_rate.join",
            text=f"{where}.learning_rate.join = rewarm: there is no phase before it whose rate it could start from",
            remedy="allowed in the first phase: continue or restart",
        )
    if rate.join == "continue":
        for key in _RATE_KEYS:
            if (value := getattr(rate, key)) is not None:
                yield Problem(
                    key=f"{where}.learning_rate.{key}",
                    text=f"{where}.learning_rate.{key} = {value} has no effect with {where}.learning_rate.join = "
                    "continue, which keeps to the schedule that has begun",
                    remedy=f"leave it out, use join: restart or rewarm, or set optimizer.{key}",
                    involved=(f"{where}.learning_rate.join",),
                )


def _schedule_problems(config: RunConfig) -> Iterator[Problem]:
    """Contradictions in each schedule of the run, under the keys that it is set by."""
    from megatron_salamandra.config.consistency import schedule_problems
    from megatron_salamandra.config.learning_rate import rate_spans

    names = list(config.phases)
    for span in rate_spans(config):
        name = names[span.first_phase]
        rate = config.phases[name].learning_rate
        given = {
            f"optimizer.{key}": f"phases.{name}.learning_rate.{key}"
            for key in _RATE_KEYS
            if getattr(rate, key) is not None
        }
        for problem in schedule_problems(span.optimizer, span.steps, length_key=f"phases.{name}"):
            text, remedy = problem.text, problem.remedy
            for key, own in given.items():
                text, remedy = text.replace(key, own), remedy.replace(key, own)
            yield Problem(
                given.get(problem.key, problem.key),
                text.replace("steps of the run", f"steps of the schedule that phases.{name} begins"),
                remedy,
                tuple(given.get(key, key) for key in problem.involved),
            )
