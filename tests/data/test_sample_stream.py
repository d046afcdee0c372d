from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_blend import write_blend
from unsummed import without_own_sum

from megatron_salamandra.data import SampleStream, by_language, final_ordinals
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError

PaperPlan = Callable[..., BlendPlan]

blends = st.dictionaries(
    st.sampled_from(["ca", "code", "en", "es", "eu", "gl", "nn"]),
    st.tuples(st.integers(20, 4000), st.sampled_from(["0.5", "1", "2", "1/3", "0.125"])),
    min_size=1,
)


def windows_of(stream: SampleStream, language: str, samples: range) -> list[tuple[int, int]]:
    """(epoch, window) of the samples of one language."""
    located = [stream.locate(k) for k in samples]
    return [(place.epoch, place.window) for place in located if place.language == language]


@given(blend=blends, sequence_length=st.integers(1, 19), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_each_window_once_per_epoch_of_its_source(
    paper_plan: PaperPlan, blend: dict[str, tuple[int, str]], sequence_length: int, seed: int
) -> None:
    stream = SampleStream(paper_plan(blend), sequence_length, seed)
    seen = Counter((place.language, place.epoch, place.window) for place in map(stream.locate, range(800)))
    assert set(seen.values()) == {1}
    for entry in stream.ledger(800):
        windows = (blend[entry.language][0] - 1) // sequence_length
        for epoch in range(entry.samples // windows):
            walked = {window for name, e, window in seen if (name, e) == (entry.language, epoch)}
            assert walked == set(range(windows))


@given(blend=blends, consumed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_ledger_is_what_counting_gives(
    paper_plan: PaperPlan, blend: dict[str, tuple[int, str]], consumed: int
) -> None:
    stream = SampleStream(paper_plan(blend), 16, seed=5)
    counted = Counter(stream.locate(k).language for k in range(consumed))
    ledger = stream.ledger(consumed)
    assert [entry.language for entry in ledger] == sorted(blend)
    for entry in ledger:
        assert entry.samples == entry.next_ordinal == counted[entry.language]
        assert entry.tokens == 16 * counted[entry.language]
        assert entry.epochs == counted[entry.language] / ((blend[entry.language][0] - 1) // 16)


@given(blend=blends, start=st.integers(0, 10**12))
@settings(max_examples=40, deadline=None)
def test_ordinals_of_each_source_are_consecutive(
    paper_plan: PaperPlan, blend: dict[str, tuple[int, str]], start: int
) -> None:
    stream = SampleStream(paper_plan(blend), 16, seed=5)
    following = {entry.language: entry.next_ordinal for entry in stream.ledger(start)}
    for k in range(start, start + 100):
        place = stream.locate(k)
        assert place.sample == k
        assert place.ordinal == following[place.language]
        following[place.language] += 1


def test_factor_one_half_walks_half_the_source_in_a_blend_epoch_and_the_other_half_in_the_next(
    paper_plan: PaperPlan,
) -> None:
    # 1000 windows of each; a pass over the blend is 500 samples of en and 1000 of de.
    stream = SampleStream(paper_plan({"en": (8001, "0.5"), "de": (8001, 1)}), 8, seed=3)
    first, second = windows_of(stream, "en", range(1500)), windows_of(stream, "en", range(1500, 3000))
    assert len(first) == len(second) == 500
    assert {epoch for epoch, _ in first + second} == {0}
    assert {window for _, window in first} | {window for _, window in second} == set(range(1000))


def test_factor_two_walks_the_source_twice_with_different_orders(paper_plan: PaperPlan) -> None:
    stream = SampleStream(paper_plan({"ca": (8001, 2), "de": (8001, 1)}), 8, seed=3)
    walked = windows_of(stream, "ca", range(3000))
    first, second = walked[:1000], walked[1000:]
    assert {epoch for epoch, _ in first} == {0} and {epoch for epoch, _ in second} == {1}
    assert (
        sorted(window for _, window in first) == sorted(window for _, window in second) == list(range(1000))
    )
    assert [window for _, window in first] != [window for _, window in second]


def test_a_phase_goes_on_where_the_last_one_left_each_source(paper_plan: PaperPlan) -> None:
    pretraining = SampleStream(paper_plan({"en": (900, "0.5"), "ca": (500, 2), "hu": (300, 1)}), 8, seed=3)
    reached = final_ordinals(pretraining.ledger(217))
    # Another mix, Hungarian dropped, and a third phase that takes it up again.
    annealing = SampleStream(paper_plan({"en": (900, "0.1"), "ca": (500, 3)}), 8, 3, reached)
    after = final_ordinals(annealing.ledger(100), reached)
    third = SampleStream(paper_plan({"hu": (300, 1), "ca": (500, 1)}), 8, 3, after)

    def walk(stream: SampleStream, language: str, samples: int) -> list[int]:
        return [p.ordinal for p in map(stream.locate, range(samples)) if p.language == language]

    catalan = walk(pretraining, "ca", 217) + walk(annealing, "ca", 100) + walk(third, "ca", 50)
    assert catalan == list(range(len(catalan)))
    assert walk(third, "hu", 50)[0] == reached["hu"] > 0
    catalan_entry = annealing.ledger(100)[0]
    assert catalan_entry.samples == len(walk(annealing, "ca", 100))
    assert catalan_entry.next_ordinal == after["ca"] == reached["ca"] + catalan_entry.samples
    assert catalan_entry.epochs == after["ca"] / 62


def test_order_of_sources_in_the_plan_does_not_matter(paper_plan: PaperPlan) -> None:
    blend = {"en": (900, "0.5"), "ca": (500, 2), "nn": (500, 2)}
    forward = SampleStream(paper_plan(blend), 8, seed=3)
    backward = SampleStream(paper_plan(dict(reversed(blend.items()))), 8, seed=3)
    assert [forward.locate(k) for k in range(400)] == [backward.locate(k) for k in range(400)]
    assert forward.fingerprint() == backward.fingerprint()


def test_seed_changes_windows_and_not_languages(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"en": (9000, "0.5"), "ca": (5000, 2)})
    one, two = (SampleStream(plan, 8, seed) for seed in (1, 2))
    places = [(one.locate(k), two.locate(k)) for k in range(300)]
    assert all(a.language == b.language for a, b in places)
    assert any(a.window != b.window for a, b in places)


def test_fingerprint_tells_apart_what_gives_other_samples(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"en": (900, "0.5"), "ca": (500, 2)})
    fingerprints = [
        SampleStream(plan, 8, 3).fingerprint(),
        SampleStream(plan, 8, 4).fingerprint(),
        SampleStream(plan, 9, 3).fingerprint(),
        SampleStream(plan, 8, 3, {"ca": 1}).fingerprint(),
        SampleStream(paper_plan({"en": (900, 1), "ca": (500, 2)}), 8, 3).fingerprint(),
        SampleStream(paper_plan({"en": (900, "0.5"), "ca": (501, 2)}), 8, 3).fingerprint(),
        SampleStream(paper_plan({"en": (900, "0.5"), "es": (500, 2)}), 8, 3).fingerprint(),
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert SampleStream(plan, 8, 3, {"ca": 0, "hu": 7}).fingerprint() == fingerprints[0]


def test_golden_samples_never_change(paper_plan: PaperPlan) -> None:
    """Frozen: a run in progress must meet the same samples after an upgrade."""
    stream = SampleStream(
        paper_plan({"en": (90_000, "0.5"), "ca": (5_000, 2), "nn": (300, 1)}), 64, seed=1234
    )
    located = [stream.locate(k) for k in (0, 1, 2, 3, 1000, 1001, 10**9)]
    assert [(p.language, p.epoch, p.window) for p in located] == [
        ("nn", 0, 0),
        ("en", 0, 1283),
        ("en", 0, 898),
        ("en", 0, 706),
        ("en", 0, 719),
        ("en", 0, 1213),
        ("en", 578_764, 959),
    ]
    assert stream.fingerprint() == "f05cdf5ab68dbabfce559fe666e039b89ef07f992974cf6b60e421cae018606a"


def test_a_factor_of_zero_leaves_the_language_out(paper_plan: PaperPlan) -> None:
    stream = SampleStream(paper_plan({"en": (900, 1), "ca": (3, 0)}), 8, seed=3)
    assert stream.languages == ("en",)
    assert {stream.locate(k).language for k in range(50)} == {"en"}
    with pytest.raises(DataError, match="no source of factor above 0"):
        SampleStream(paper_plan({"en": (900, 0)}), 8, seed=3)


def test_a_language_shorter_than_a_window_is_named_with_a_remedy(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"en": (900, 1), "nn": (64, 2)})
    with pytest.raises(DataError, match=r"language nn has 64 tokens.*\n.*factor 0 for nn.*sequence_length"):
        SampleStream(plan, 64, seed=3)
    assert SampleStream(plan, 63, seed=3).ledger(0)[1].language == "nn"  # 64 tokens are one window of 63 + 1


def test_bad_arguments_are_refused(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"en": (900, 1)})
    with pytest.raises(ValueError, match="sequence_length"):
        SampleStream(plan, 0, seed=3)
    with pytest.raises(DataError, match="start ordinal of en is -1"):
        SampleStream(plan, 8, 3, {"en": -1})
    with pytest.raises(ValueError, match="start at 0"):
        SampleStream(plan, 8, 3).locate(-1)


@given(blend=blends, consumed=st.integers(0, 300), skips=st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=40, deadline=None)
def test_passed_over_samples_count_for_the_place_and_not_for_what_was_drawn(
    paper_plan: PaperPlan, blend: dict[str, tuple[int, str]], consumed: int, skips: list[int]
) -> None:
    stream = SampleStream(paper_plan(blend), sequence_length=7, seed=3)
    edges = sorted(min(edge, consumed) for edge in skips[: len(skips) // 2 * 2])
    skipped = [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    trained = Counter(
        stream.locate(k).language for k in range(consumed) if not any(k in samples for samples in skipped)
    )
    for entry, whole in zip(stream.ledger(consumed, skipped), stream.ledger(consumed), strict=True):
        assert entry.samples == trained[entry.language]
        assert entry.tokens == 7 * entry.samples
        assert (entry.next_ordinal, entry.epochs) == (whole.next_ordinal, whole.epochs)


def named(plan: BlendPlan, **names: str) -> BlendPlan:
    """The plan with sources under other names: language -> name."""
    sources = [replace(source, name=names.get(source.language, source.language)) for source in plan.sources]
    return replace(plan, sources=tuple(sources))


def test_two_sources_of_a_language_walk_their_own_windows(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"ca": (1001, 1), "en": (3001, 1)})
    second = replace(plan.sources[0], name="ca-wiki")
    stream = SampleStream(replace(plan, sources=(*plan.sources, second)), 10, seed=3)
    assert (stream.sources, stream.languages) == (("ca", "ca-wiki", "en"), ("ca", "ca", "en"))
    places = [stream.locate(k) for k in range(520)]
    walks = {name: [place.window for place in places if place.source == name] for name in ("ca", "ca-wiki")}
    assert sorted(walks["ca"][:100]) == sorted(walks["ca-wiki"][:100]) == list(range(100))
    assert walks["ca"] != walks["ca-wiki"]
    languages = {entry.language: entry for entry in by_language(stream.ledger(750))}
    assert languages["ca"].tokens + languages["en"].tokens == 7500
    assert languages["ca"].epochs == languages["ca"].tokens / 2000 == pytest.approx(1.5, abs=0.02)
    assert final_ordinals(stream.ledger(520)) == dict(Counter(place.source for place in places))


def test_a_source_of_another_name_is_another_stream(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"ca": (1001, 1), "en": (3001, 1)})
    assert (
        SampleStream(named(plan, ca="wiki"), 10, seed=3).fingerprint()
        != SampleStream(plan, 10, seed=3).fingerprint()
    )


def test_a_source_that_is_no_text_is_refused_by_name(paper_plan: PaperPlan) -> None:
    plan = paper_plan({"ca": (1001, 1), "en": (3001, 1)})
    images = replace(plan.sources[0], name="photos", kind="images")
    with pytest.raises(
        DataError, match=r"source photos is of kind images; training reads text\n  leave it out"
    ):
        SampleStream(replace(plan, sources=(images, plan.sources[1])), 10, seed=3)


def test_the_order_of_languages_is_the_one_it_always_was(tmp_path: Path) -> None:
    """Fingerprints and samples of the plan in tests/support, as version 0.1.0 computed them."""
    path = write_blend(tmp_path)
    plan = BlendPlan.load(path)
    assert plan.fingerprint() == "6cc8071967049949f1af2ae8893d226606b3a799c1e9b1bf2a8ce39af02c05e7"
    written = "2142a4089dc68defe9725c13387c2314bdbd06fb49fe585bc2d7ffe9998ec76a"
    assert hashlib.sha256(without_own_sum(path.read_bytes())).hexdigest() == written
    stream = SampleStream(plan, 64, 1234, {"ca": 5})
    assert stream.fingerprint() == "246ce7e8633210af5b9ab7034a848ccacf7db46bcb2c69670071f9a878f2d308"
    places = [stream.locate(k) for k in range(6)]
    assert [(place.source, place.window) for place in places] == [
        ("ga", 13),
        ("ca", 93),
        ("en", 5),
        ("ca", 12),
        ("en", 139),
        ("ca", 122),
    ]
