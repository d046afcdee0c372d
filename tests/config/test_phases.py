"""Phases in a configuration: lengths, views, learning rates and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.config import ConfigError, RunConfig, learning_rate_of, load_run_config, rate_spans

PHASES = """\
phases:
  first: {steps: 40}
  second: {tokens: 40000, sequence_length: 128, global_batch_size: 16, new_text: [en],
           rope_scaling: {factor: 2, original_sequence_length: 64},
           learning_rate: {join: rewarm, lr: 5e-4, min_lr: 1e-4, warmup_steps: 4}}
  third: {steps: 10, blend: third.yaml}
"""


@pytest.fixture
def phased(base_file: Path) -> Path:
    path = base_file.with_name("phased.yaml")
    path.write_text("extends: ./base.yaml\n" + PHASES, encoding="utf-8")
    return path


def test_lengths_and_windows_of_phases_make_the_run(phased: Path) -> None:
    config = load_run_config(str(phased))
    # 16 samples of 128 tokens a step.
    second = math.ceil(40_000 / (16 * 128))
    assert [config.phase_steps(number) for number in range(3)] == [40, second, 10]
    timeline = config.timeline
    assert (timeline.phases, timeline.total_steps) == (("first", "second", "third"), 40 + second + 10)
    assert timeline.tokens(41) == 40 * 32 * 64 + 16 * 128
    assert timeline.step_samples(41) == range(16) and timeline.step_samples(40 + second + 1) == range(32)


def test_a_phase_is_seen_as_a_run_of_its_own(phased: Path) -> None:
    config = load_run_config(str(phased), ["data.blend=all.yaml"])
    first, second, third = (config.in_phase(number) for number in range(3))
    assert [part.data.sequence_length for part in (first, second, third)] == [64, 128, 64]
    assert [part.training.global_batch_size for part in (first, second, third)] == [32, 16, 32]
    assert [str(part.data.blend) for part in (first, second, third)] == ["all.yaml", "all.yaml", "third.yaml"]
    assert second.model.rope_scaling is not None and first.model.rope_scaling is None
    assert second.total_steps == second.training.steps == config.phase_steps(1)


def test_a_checkpoint_is_of_the_phase_its_last_step_was_in(phased: Path) -> None:
    config = load_run_config(str(phased))
    assert [config.at_step(step).data.sequence_length for step in (0, 40, 41, 10**6)] == [64, 64, 128, 64]
    assert config.at_step(41).model.rope_scaling is not None


def test_a_run_without_phases_is_one_phase(load: Callable[..., RunConfig]) -> None:
    config = load()
    assert config.phase_names == ("main",)
    assert config.in_phase(0) == config
    assert [span.steps for span in rate_spans(config)] == [100]


def test_what_was_written_is_read_again(phased: Path) -> None:
    config = load_run_config(str(phased))
    copy = phased.with_name("copy.yaml")
    copy.write_text(config.to_yaml())
    assert load_run_config(str(copy)) == config


def test_keys_of_one_phase_are_replaced_alone(phased: Path) -> None:
    config = load_run_config(str(phased), ["phases.second.steps=3", "phases.fourth.steps=5"])
    assert list(config.phases) == ["first", "second", "third", "fourth"]
    assert (config.phases["second"].tokens, config.phases["second"].steps) == (None, 3)
    assert config.phases["second"].sequence_length == 128


def test_continue_is_one_schedule_over_the_phases(load: Callable[..., RunConfig]) -> None:
    whole, parted = load(), load("phases.a.steps=30", "phases.b.steps=70")
    rates = [learning_rate_of(whole, step) for step in range(1, 101)]
    assert [learning_rate_of(parted, step) for step in range(1, 101)] == rates


def test_restart_warms_up_from_nothing_and_rewarm_from_the_last_rate(load: Callable[..., RunConfig]) -> None:
    own = ["optimizer.min_lr=1e-4", "phases.a.steps=30", "phases.b.steps=20"]
    rate = ["phases.b.learning_rate={lr: 5e-4, min_lr: 0, warmup_steps: 4, join: %s}"]
    restarted = load(*own, rate[0] % "restart")
    rewarmed = load(*own, rate[0] % "rewarm")
    # The first phase comes to its own end.
    assert learning_rate_of(restarted, 30) == learning_rate_of(rewarmed, 30) == pytest.approx(1e-4)
    assert [learning_rate_of(restarted, step) for step in range(31, 35)] == pytest.approx(
        [1.25e-4, 2.5e-4, 3.75e-4, 5e-4]
    )
    assert [learning_rate_of(rewarmed, step) for step in range(31, 35)] == pytest.approx(
        [2e-4, 3e-4, 4e-4, 5e-4]
    )
    assert learning_rate_of(rewarmed, 42) == pytest.approx(2.5e-4)  # half-way down the cosine
    assert learning_rate_of(rewarmed, 50) == pytest.approx(0, abs=1e-12)


def test_wsd_over_phases_decays_in_the_last_one(load: Callable[..., RunConfig]) -> None:
    config = load(
        "optimizer.schedule=wsd",
        "optimizer.decay_steps=20",
        "phases.stable.steps=80",
        "phases.decay.steps=20",
    )
    assert learning_rate_of(config, 80) == 1e-3
    assert learning_rate_of(config, 90) == pytest.approx(5e-4)
    assert learning_rate_of(config, 100) == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases.a.steps=5", "training.steps=5"], "training.steps = 5 has no effect: the run has phases"),
        (["phases.a={}"], "phases.a.steps and phases.a.tokens are both missing"),
        (["phases.a={steps: 20, tokens: 5}"], "phases.a.steps and phases.a.tokens are both set"),
        (["phases={a-b: {steps: 20}}"], "'a-b', which cannot be a part of a key"),
        (["phases.a.stepz=5"], "phases.a.stepz is not a known key\n  did you mean phases.a.steps?"),
        (["phases.a.learning_rate.joint=restart"], "did you mean phases.a.learning_rate.join?"),
        (["phases.a.steps=0"], "phases.a.steps = 0 (a whole number); expected at least 1"),
        (["phases.a={steps: 20, new_text: [en]}"], "has no effect in the first phase"),
        (["phases.a={steps: 20, learning_rate: {join: rewarm}}"], "there is no phase before it"),
        (
            ["phases.a.steps=20", "phases.b={steps: 5, learning_rate: {lr: 1e-4}}"],
            "phases.b.learning_rate.lr = 0.0001 has no effect with phases.b.learning_rate.join = continue",
        ),
        (
            ["phases.a.steps=20", "phases.b={steps: 5, learning_rate: {join: restart, warmup_steps: 5}}"],
            "phases.b.learning_rate.warmup_steps = 5 is not below the 5 steps of the schedule that phases.b begins",
        ),
        (
            ["phases.a.steps=20", "phases.b={steps: 50, learning_rate: {join: restart, min_lr: 2}}"],
            "phases.b.learning_rate.min_lr = 2 is above the peak optimizer.lr = 0.001",
        ),
        (["phases.a.steps=5"], "optimizer.warmup_steps = 10 is not below the 5 steps of the schedule"),
        (
            ["phases.a.steps=20", "phases.b={steps: 5, global_batch_size: 31}"],
            "does not divide phases.b.global_batch_size = 31",
        ),
        (
            ["parallel.tensor=2", "parallel.sequence=true", "phases.a={steps: 20, sequence_length: 63}"],
            "parallel.tensor = 2 does not divide phases.a.sequence_length = 63",
        ),
        (
            ["phases.a={steps: 20, expected: {token_counts: a.yaml}}"],
            "phases.a.expected needs exactly one of factors and temperature",
        ),
    ],
)
def test_contradictions_are_told_by_their_key(
    load: Callable[..., RunConfig], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)


def test_the_batch_of_every_phase_must_fit_the_ranks(load: Callable[..., RunConfig]) -> None:
    config = load("phases.a.steps=20", "phases.b={steps: 5, global_batch_size: 6}")
    assert config.validate_for_world(1).micro_batches_per_step == 16
    with pytest.raises(ConfigError, match=r"phases.b.global_batch_size = 6 samples does not divide"):
        config.validate_for_world(4)
