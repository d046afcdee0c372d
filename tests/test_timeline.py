"""Where a run is, against walking its steps one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.timeline import Segment, SkippedSamples, Timeline, trained_steps

RUN = Timeline(
    ("a", "b"),
    (
        Segment(phase=0, steps=3, first_sample=0, batch_size=4, sequence_length=8),
        Segment(phase=0, steps=2, first_sample=12, batch_size=6, sequence_length=8),
        Segment(phase=1, steps=5, first_sample=0, batch_size=2, sequence_length=16),
    ),
)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    numbers = st.integers(1, 5)
    segments, reached = [], {0: 0, 1: 0, 2: 0}
    for phase in sorted(draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))):
        first = reached[phase] + draw(st.integers(0, 4))
        segment = Segment(phase, draw(numbers), first, draw(numbers), draw(numbers))
        segments.append(segment)
        reached[phase] = segment.end_sample
    return Timeline(("a", "b", "c"), tuple(segments))


@given(timelines())
def test_every_answer_is_what_walking_the_steps_gives(timeline: Timeline) -> None:
    samples = tokens = step = 0
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for segment in timeline.segments:
        for done in range(segment.steps):
            step += 1
            first = segment.first_sample + done * segment.batch_size
            taken = range(first, first + segment.batch_size)
            assert timeline.step_samples(step) == taken
            assert timeline.phase(step) == segment.phase
            samples += segment.batch_size
            tokens += segment.batch_size * segment.sequence_length
            assert (timeline.samples(step), timeline.tokens(step)) == (samples, tokens)
            assert timeline.step_tokens(step) == segment.batch_size * segment.sequence_length
            seen[segment.phase] += taken
            passed = {(skip.phase, sample) for skip in timeline.skipped(step) for sample in skip.samples}
            for phase, numbers in seen.items():
                reached = timeline.reached_sample(phase, step)
                assert reached == (numbers[-1] + 1 if numbers else 0)
                missing = set(range(reached)) - set(numbers)
                assert missing == {sample for skipped, sample in passed if skipped == phase}
    assert timeline.total_steps == step
    assert (timeline.samples(0), timeline.tokens(0)) == (0, 0)


@given(timelines(), st.data())
def test_a_run_that_goes_on_from_its_own_beginning_is_the_same_run(
    timeline: Timeline, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, timeline.total_steps))
    trained = timeline.until(step)
    assert trained is not None and trained.total_steps == step
    resumed = timeline.going_on_from(Timeline.from_dict(json.loads(json.dumps(trained.to_dict()))))
    for number in range(1, timeline.total_steps + 1):
        assert resumed.step_samples(number) == timeline.step_samples(number)
        assert resumed.tokens(number) == timeline.tokens(number)


@given(timelines(), st.data())
def test_what_is_recorded_of_a_run_does_not_tell_how_often_it_was_started(
    timeline: Timeline, data: st.DataObject
) -> None:
    starts = sorted(data.draw(st.sets(st.integers(1, timeline.total_steps), max_size=4)))
    started_again = timeline
    for step in starts:
        trained = started_again.until(step)
        assert trained is not None
        started_again = timeline.going_on_from(Timeline.from_dict(trained.to_dict()))
    for step in range(1, timeline.total_steps + 1):
        assert started_again.until(step) == timeline.until(step)


def test_phases_begin_and_end_where_their_steps_do() -> None:
    assert [(RUN.first_step(phase), RUN.last_step(phase)) for phase in (0, 1)] == [(0, 5), (5, 10)]
    assert [RUN.phase(step) for step in (1, 5, 6, 10)] == [0, 0, 1, 1]


def test_passed_over_samples_move_the_rest_of_their_phase_and_no_other() -> None:
    run = RUN.passing_over(1, 8)
    assert [run.step_samples(step).start for step in (1, 2, 3, 4, 5, 6)] == [0, 12, 16, 20, 26, 0]
    assert run.skipped() == run.skipped(2) == (SkippedSamples(0, range(4, 12)),)
    assert run.skipped(1) == ()
    assert (run.total_steps, run.samples(10), run.tokens(10)) == (10, RUN.samples(10), RUN.tokens(10))
    twice = run.passing_over(1, 1)
    assert twice.skipped() == (SkippedSamples(0, range(4, 13)),)


def test_what_was_passed_over_stays_so_when_the_run_is_resumed() -> None:
    trained = RUN.passing_over(1, 8).until(2)
    assert trained is not None
    assert RUN.going_on_from(trained).segments == (
        Segment(0, 1, 0, 4, 8),
        Segment(0, 1, 12, 4, 8),
        Segment(0, 1, 16, 4, 8),
        Segment(0, 2, 20, 6, 8),
        Segment(1, 5, 0, 2, 16),
    )


def test_checkpoints_that_name_sums_alone_are_understood() -> None:
    state = {"step": 6, "consumed_samples": 24, "consumed_tokens": 1536}
    assert trained_steps(state) == Timeline.of_one_phase("main", steps=6, batch_size=4, sequence_length=64)
    assert trained_steps({"step": 0, "consumed_samples": 0, "consumed_tokens": 0}) is None
    with pytest.raises(ValueError, match="5 steps do not divide 24 samples"):
        trained_steps({**state, "step": 5})


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"phases": ["a"], "segments": []},
        {"phases": ["a"], "segments": [{"phase": 0}]},
        {"phases": ["a"], "segments": None},
        {"phases": [], "segments": RUN.to_dict()["segments"]},
        {**RUN.to_dict(), "segments": RUN.to_dict()["segments"][::-1]},
        {**RUN.to_dict(), "segments": [{**RUN.to_dict()["segments"][0], "steps": "3"}]},
    ],
)
def test_a_damaged_record_is_refused(contents: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Timeline.from_dict(contents)


def test_steps_outside_the_run_are_refused() -> None:
    for step in (0, 11):
        with pytest.raises(ValueError, match=f"steps 1 to 10; asked for step {step}"):
            RUN.step_samples(step)
    assert RUN.until(0) is None


def test_a_long_run_is_answered_at_once() -> None:
    run = Timeline.of_one_phase("main", steps=3_016_817, batch_size=512, sequence_length=8192)
    assert run.tokens(3_016_817) == 12_653_447_610_368
    assert run.step_samples(3_016_817).stop == 3_016_817 * 512
