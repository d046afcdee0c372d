"""Learning-rate schedules against their formulas and the published end points."""

from __future__ import annotations

import math

import pytest

from megatron_salamandra.config import OptimizerSection, learning_rate, load_run_config


def test_7b_cosine_passes_through_the_published_points() -> None:
    """Peak 3.0e-4 at step 2000, 3.0e-5 at step 3,016,817; 1.33e-4 at step 1,736,777 (derived in closed form)."""
    config = load_run_config("salamandra-7b", [])
    total = config.total_steps
    assert total == 3_016_817
    assert learning_rate(config.optimizer, 1, total) == pytest.approx(3.0e-4 / 2000)
    assert learning_rate(config.optimizer, 2000, total) == pytest.approx(3.0e-4)
    assert learning_rate(config.optimizer, 1_736_777, total) == pytest.approx(1.33e-4, rel=5e-3)
    assert learning_rate(config.optimizer, total, total) == pytest.approx(3.0e-5)
    assert learning_rate(config.optimizer, total + 10, total) == pytest.approx(3.0e-5)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    options = OptimizerSection(lr=1.0, min_lr=0.1, warmup_steps=100)
    assert learning_rate(options, 600, 1100) == pytest.approx(0.55)
    assert learning_rate(options, 350, 1100) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_wsd_is_flat_and_then_linear() -> None:
    options = OptimizerSection(lr=1.0, min_lr=0.2, warmup_steps=10, schedule="wsd", decay_steps=100)
    assert [learning_rate(options, step, 1000) for step in (5, 10, 500, 900)] == [0.5, 1.0, 1.0, 1.0]
    assert learning_rate(options, 950, 1000) == pytest.approx(0.6)
    assert learning_rate(options, 1000, 1000) == pytest.approx(0.2)


def test_constant_stays_and_no_warmup_starts_at_the_peak() -> None:
    options = OptimizerSection(lr=0.3, warmup_steps=0, schedule="constant")
    assert [learning_rate(options, step, 50) for step in (1, 25, 50)] == [0.3, 0.3, 0.3]
