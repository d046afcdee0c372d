from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_salamandra.data.source_tree import SourceTree

# Blend of the published 7B configuration, langtech-bsc/salamandra configs/bsc_7b.yaml, summed by language (%).
PUBLISHED_7B_SHARES = {
    "en": "39.25307", "es": "16.63877", "code": "6.38876", "fr": "6.35171", "ru": "5.39971", "de": "4.26921",
    "hu": "3.95009", "pt": "2.34569", "it": "1.95003", "ca": "1.85117", "nl": "1.16616", "pl": "1.16121",
    "el": "1.12972", "uk": "1.12691", "cs": "0.99071", "bg": "0.69674", "sk": "0.67805", "ro": "0.67384",
    "sv": "0.51148", "fi": "0.43015", "no": "0.39131", "sl": "0.38582", "gl": "0.36599", "da": "0.36588",
    "sr": "0.32594", "hr": "0.28486", "eu": "0.26345", "et": "0.23559", "lt": "0.17911", "lv": "0.11710",
    "mt": "0.09551", "ga": "0.00746", "cy": "0.00715", "sh": "0.00555", "oc": "0.00360", "nn": "0.00252",
}  # fmt: skip
PUBLISHED_WEIGHTS = [int(Decimal(share) * 100_000) for share in PUBLISHED_7B_SHARES.values()]

# Spread over 8 decades as languages are, not only over the digits of an integer.
eight_decades = st.floats(0, 8).map(lambda exponent: max(1, int(10**exponent)))
weight_lists = st.lists(eight_decades | st.integers(1, 100) | st.integers(1, 10**30), min_size=1, max_size=40)


def assert_shares_within_two_samples(tree: SourceTree, samples: int) -> None:
    """Exact integers: |count - samples * w / t| < 2, multiplied by t."""
    total = sum(tree.weights)
    counts = tree.counts(samples)
    assert sum(counts) == samples
    for count, weight in zip(counts, tree.weights, strict=True):
        assert abs(count * total - samples * weight) < 2 * total


@given(weight_lists, st.integers(0, 10**13))
@example([1] * 64, 63)
@example([2**i for i in range(60)], 2**60 - 1)
@example([1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987], 1_580)
@example([1, 10**30], 10**13)
@settings(max_examples=400, deadline=None)
def test_prefix_shares_stay_within_two_samples(weights: list[int], samples: int) -> None:
    tree = SourceTree(weights)
    assert_shares_within_two_samples(tree, samples)
    assert_shares_within_two_samples(tree, samples % (sum(tree.weights) + 1))


def test_published_shares_stay_within_two_samples_at_every_prefix() -> None:
    tree = SourceTree(PUBLISHED_WEIGHTS)
    assert len(PUBLISHED_WEIGHTS) == 36
    for samples in (*range(4000), *range(10**6, 10**6 + 1000), *range(1_544_610_304, 1_544_610_304 + 1000)):
        assert_shares_within_two_samples(tree, samples)


@given(weight_lists, st.integers(0, 10**10))
@settings(max_examples=100, deadline=None)
def test_ordinals_of_each_source_are_consecutive(weights: list[int], first: int) -> None:
    tree = SourceTree(weights)
    expected = tree.counts(first)
    for sample in range(first, first + 200):
        source, ordinal = tree.locate(sample)
        assert ordinal == expected[source]
        expected[source] += 1
    assert tree.counts(first + 200) == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_one_period_deals_every_source_exactly_its_weight(weights: list[int]) -> None:
    tree = SourceTree(weights)
    period = sum(tree.weights)
    dealt = Counter(tree.locate(sample)[0] for sample in range(period))
    assert [dealt[source] for source in range(len(weights))] == list(tree.weights)


def test_only_the_ratios_of_weights_matter() -> None:
    small, large = SourceTree([3, 1, 7]), SourceTree([3 * 10**40, 10**40, 7 * 10**40])
    assert [small.locate(k) for k in range(500)] == [large.locate(k) for k in range(500)]


def test_golden_order_never_changes() -> None:
    """Frozen: a run in progress must meet the same samples after an upgrade."""
    tree = SourceTree([50, 25, 20, 4, 1])
    order = "".join("abcde"[tree.locate(k)[0]] for k in range(60))
    assert order == "aeabacabacabacabacabadabacabacabacabacabadabacabacabacabacab"
    assert tree.locate(10**15 + 7) == (1, 250_000_000_000_001)
    published = SourceTree(PUBLISHED_WEIGHTS)
    languages = list(PUBLISHED_7B_SHARES)
    order = " ".join(languages[published.locate(k)[0]] for k in range(24))
    assert order == "en es en el code en es en hu sk en es en fr de en code en es fr en pt en es"
    last = 3_016_817 * 512 - 1  # of the published 7B run
    assert published.locate(last) == (27, 3_638_946)


@pytest.mark.parametrize("weights", [[], [0], [3, 0], [5, -1]])
def test_weights_must_be_positive(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="source"):
        SourceTree(weights)


def test_sample_numbers_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="start at 0"):
        SourceTree([1]).locate(-1)
    with pytest.raises(ValueError, match="at least 0"):
        SourceTree([1]).counts(-1)
