"""What a resumed run may change of its blend, and how what differs is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from megatron_salamandra.data import compare_blends
from salamandra_data.blend_plan import BlendPlan, BlendSource


def with_source(plan: BlendPlan, change: Callable[[BlendSource], BlendSource]) -> BlendPlan:
    """The plan with its first source changed."""
    return dataclasses.replace(plan, sources=(change(plan.sources[0]), *plan.sources[1:]))


def test_nothing_differs_between_a_plan_and_itself(blend: Path) -> None:
    plan = BlendPlan.load(blend)
    changes = compare_blends(plan, plan)
    assert (changes.of_samples, changes.of_validation) == ((), ())


def test_held_out_text_may_change_and_is_named(blend: Path) -> None:
    plan = BlendPlan.load(blend)
    first = plan.sources[0]
    without = with_source(plan, lambda source: dataclasses.replace(source, validation_shards=()))
    for before, now in ((without, plan), (plan, without)):
        changes = compare_blends(before, now)
        assert changes.of_samples == ()
        (told,) = changes.of_validation
        assert first.name in told
        assert "none" in told
        assert f"{first.validation_tokens:,} tokens" in told


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda source: dataclasses.replace(source, factor=Fraction(3)), "the factor of"),
        (lambda source: dataclasses.replace(source, shards=source.validation_shards), "the training shards"),
        (lambda source: dataclasses.replace(source, name="other", language="other"), "other is new"),
    ],
)
def test_what_decides_the_samples_is_named(
    blend: Path, change: Callable[[BlendSource], BlendSource], named: str
) -> None:
    plan = BlendPlan.load(blend)
    changes = compare_blends(plan, with_source(plan, change))
    assert named in ", ".join(changes.of_samples)


def test_the_order_of_the_sources_and_the_tokenizer_decide_too(blend: Path) -> None:
    plan = BlendPlan.load(blend)
    turned = dataclasses.replace(plan, sources=plan.sources[::-1])
    assert compare_blends(plan, turned).of_samples == ("the order of the sources",)
    other = dataclasses.replace(plan, tokenizer=dataclasses.replace(plan.tokenizer, sha256="0"))
    assert compare_blends(plan, other).of_samples == ("the tokenizer",)
