"""``salamandra plan`` of the published recipes: lengths, and golden values of the learning rate at every join."""

from __future__ import annotations

import json

import pytest

from megatron_salamandra.cli import main
from megatron_salamandra.config import learning_rate_of, load_run_config
from megatron_salamandra.planning import make_plan, render_plan


def test_the_40b_recipe_has_the_published_lengths_and_rates() -> None:
    """bsc_40b.yaml, 40B_quality_data.yaml and bsc_40b_32k.yaml."""
    plan = make_plan(load_run_config("salamandra-40b-phases"))
    assert [(phase.name, phase.tokens) for phase in plan.phases] == [
        ("corpus_a", 868_388 * 4_194_304),
        ("corpus_b", 1_325_652 * 4_194_304),
        ("annealing", 141_117 * 4_194_304),
        ("long_context", 1_500 * 4_194_304),
    ]
    main_end, annealing, long_context = (plan.phases[number].rates for number in (1, 2, 3))
    assert main_end[2] == pytest.approx(9.0e-6)
    assert annealing == pytest.approx((9.0e-9, 9.0e-6, 9.0e-7))
    assert long_context == pytest.approx((7.7e-6 / 500, 7.7e-6, 7.7e-7))
    assert plan.shown_phase == "long_context"
    assert plan.config.model.rope_scaling is not None


@pytest.mark.parametrize(("name", "peak"), [("salamandra-2b-phases", 2e-4), ("salamandra-7b-phases", 3e-4)])
def test_pre_training_is_one_cosine_over_both_corpora(name: str, peak: float) -> None:
    phased, plain = load_run_config(name), load_run_config(name.removesuffix("-phases"))
    for step in (1, 2000, 1_736_777, 1_736_778, 3_016_817):
        assert learning_rate_of(phased, step) == learning_rate_of(plain, step)
    assert learning_rate_of(phased, 2000) == peak
    assert learning_rate_of(phased, 3_016_817) == pytest.approx(peak / 10)
    assert learning_rate_of(phased, 3_016_818) == pytest.approx(peak / 10, rel=1e-6)
    assert learning_rate_of(phased, phased.total_steps) == pytest.approx(peak / 100)


def test_phases_are_printed_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    text = render_plan(make_plan(load_run_config("salamandra-2b-phases")))
    assert "in 3 phases = 12,968,448,229,376 tokens" in text and "corpus_b" in text
    assert main(["plan", "salamandra-2b-phases", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 3_091_919 and [phase["steps"] for phase in printed["phases"]][:1] == [
        1_736_777
    ]
