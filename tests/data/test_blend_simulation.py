"""A simulated run is what the stream would deal, and the published schedule has the published length."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_salamandra.cli import main
from megatron_salamandra.config import load_run_config, presets_directory
from megatron_salamandra.data import SampleStream, carried_ordinals, final_ordinals
from megatron_salamandra.data.simulation import Phase, PhaseResult, Schedule, simulate
from megatron_salamandra.data.simulation.report import phase_tables, repeated_languages, simulation_csv
from salamandra_data.blend_plan import (
    BlendPlan,
    LanguageFactors,
    TokenCounts,
    build_plan,
    plan_of_counts,
    temperature_factors,
)
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards import ShardWriter, TokenizerIdentity

RECIPES = presets_directory() / "data"
COUNTS = {"en": 40_001, "ca": 1_001, "eu": 301, "hu": 2_002}
GROWN = {"en": 45_001, "ca": 2_501, "eu": 301, "oc": 777}
FACTORS = {"default": 1, "factors": {"en": 0.5, "ca": 2, "eu": 2}}


def write_schedule(directory: Path, *phases: dict[str, Any], length: int = 50) -> Path:
    (directory / "counts.yaml").write_text(yaml.safe_dump({"source": "made up", "tokens": COUNTS}))
    (directory / "grown.yaml").write_text(yaml.safe_dump({"source": "made up", "tokens": GROWN}))
    (directory / "factors.yaml").write_text(yaml.safe_dump(FACTORS))
    path = directory / "schedule.yaml"
    path.write_text(yaml.safe_dump({"sequence_length": length, "phases": list(phases)}))
    return path


def phase(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "token_counts": "counts.yaml", "factors": "factors.yaml", "passes": 1, **changes}


def at_end(results: list[PhaseResult]) -> dict[str, tuple[int, float]]:
    return {point.language: (point.total_tokens, point.epochs) for point in results[-1].end}


def test_every_point_is_what_the_stream_deals_sample_by_sample(tmp_path: Path) -> None:
    schedule = Schedule.load(write_schedule(tmp_path, phase(passes=1.5)))
    (result,) = simulate(schedule, points=7)
    stream = SampleStream(schedule.phases[0].plan, 50, seed=99)
    dealt: Counter[str] = Counter()
    furthest: dict[str, tuple[int, int]] = {}
    points = defaultdict(list)
    for point in result.points:
        points[point.run_tokens // 50].append(point)
    assert len(points) == 8
    for sample in range(result.tokens // 50 + 1):
        for point in points.get(sample, []):
            windows = (COUNTS[point.language] - 1) // 50
            assert point.phase_tokens == point.total_tokens == 50 * dealt[point.language]
            assert point.epochs == pytest.approx(dealt[point.language] / windows)
            if point.language in furthest:
                epoch, ordinal = furthest[point.language]
                assert ordinal + 1 == dealt[point.language] and epoch == ordinal // windows
        location = stream.locate(sample)
        dealt[location.language] += 1
        furthest[location.language] = (location.epoch, location.ordinal)


def test_gaps_and_returns_are_those_of_the_stream(tmp_path: Path) -> None:
    schedule = Schedule.load(write_schedule(tmp_path, phase(passes=8)))
    (result,) = simulate(schedule)
    stream = SampleStream(schedule.phases[0].plan, 50, seed=0)
    places: dict[str, list[int]] = defaultdict(list)
    visits: dict[tuple[str, int], list[int]] = defaultdict(list)
    for sample in range(result.tokens // 50):
        location = stream.locate(sample)
        places[location.language].append(sample)
        visits[location.language, location.window].append(sample)
    for language in result.languages:
        found = places[language.language]
        assert (found[-1] - found[0]) / (len(found) - 1) == pytest.approx(language.gap_samples, rel=0.05)
        gaps = [after - before for before, after in itertools.pairwise(found)]
        assert max(gaps) < 4 * language.gap_samples + 1  # every prefix is within two samples of its share
        if language.language != "en":
            returns = [
                (after - before) * 50
                for (name, _), seen in visits.items()
                if name == language.language
                for before, after in itertools.pairwise(seen)
            ]
            assert sum(returns) / len(returns) == pytest.approx(language.revisit_tokens, rel=0.1)


@pytest.mark.parametrize("counts", ["counts.yaml", "grown.yaml"])
def test_languages_go_on_in_the_next_phase_unless_their_text_is_new(tmp_path: Path, counts: str) -> None:
    """Also where the text has grown, a language is left out, or it comes back: every phase is a stream's ledger."""
    phases = [
        phase(passes=2.3),
        phase(name="two", token_counts=counts, passes=0.5, new_text=["en"]),
        phase(name="three", passes=0.7),
    ]
    schedule = Schedule.load(write_schedule(tmp_path, *phases))
    reached: dict[str, int] = {}
    total: Counter[str] = Counter()
    for part, result in zip(schedule.phases, simulate(schedule, points=3), strict=True):
        start = carried_ordinals(reached, part.new_text)
        stream = SampleStream(part.plan, 50, seed=7, start_ordinals=start)
        found = {point.language: point for point in result.end}
        ledger = stream.ledger(result.tokens // 50)
        assert found.keys() == {entry.language for entry in ledger}
        for entry in ledger:
            total[entry.language] += entry.tokens
            point = found[entry.language]
            assert (point.phase_tokens, point.epochs) == (entry.tokens, entry.epochs)
            assert point.total_tokens == total[entry.language]
        reached = final_ordinals(ledger, start)
        # The next sample of the stream says the same.
        following = itertools.islice(map(stream.locate, itertools.count(result.tokens // 50)), 500)
        for place in following:
            if place.language == "ca":
                windows = (part_tokens(part, "ca") - 1) // 50
                assert (place.ordinal, place.epoch) == (reached["ca"], reached["ca"] // windows)
                break
    assert reached["hu"] > 0


def part_tokens(part: Phase, language: str) -> int:
    return next(source.tokens for source in part.plan.sources if source.language == language)


def test_token_counts_simulate_as_the_plan_of_real_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "tokenizer.model").write_bytes(b"not really a model")
    identity = TokenizerIdentity(sha256_of_file(shards / "tokenizer.model"), vocab_size=1000, eod_id=2)
    for number, (language, tokens) in enumerate(COUNTS.items()):
        for part, size in enumerate((tokens // 3, tokens - tokens // 3)):
            prefix = shards / f"{language}-train-{part:05d}"
            with ShardWriter(prefix, language=language, split="train", tokenizer=identity) as writer:
                writer.add_document([10 + 2 * number + part] * (size - 1) + [2], utf8_bytes=size)
    by_counts = write_schedule(tmp_path, phase())
    factors = LanguageFactors.load(tmp_path / "factors.yaml")
    build_plan([shards], factors).save(tmp_path / "blend.yaml")
    expected = simulate(Schedule.load(by_counts))
    entry = {"name": "one", "plan": "blend.yaml", "passes": 1}
    assert simulate(Schedule.load(write_schedule(tmp_path, entry))) == expected
    command = ["data", "blend", "--shards", str(shards), "--out", str(tmp_path / "warm.yaml")]
    assert main([*command, "--temperature", "2"]) == 0
    assert "left out" not in capsys.readouterr().err
    plan = BlendPlan.load(tmp_path / "warm.yaml")
    assert float(plan.share("en") / plan.share("ca")) == pytest.approx((40_001 / 1_001) ** 0.5, rel=1e-5)
    with pytest.raises(SystemExit):
        main([*command, "--temperature", "2", "--factors", "f"])


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**13), min_size=1),
    st.fractions(1, 20, max_denominator=100),
)
def test_temperature_gives_the_shares_of_the_formula_by_exact_factors(
    tokens: dict[str, int], temperature: Fraction
) -> None:
    factors = temperature_factors(tokens, temperature)
    plan = plan_of_counts(TokenCounts(tokens, "made up"), factors)
    total = sum(count ** float(1 / temperature) for count in tokens.values())
    for source in plan.sources:
        share = source.tokens ** float(1 / temperature) / total
        assert float(plan.share(source.language)) == pytest.approx(share, rel=2e-5)
        assert source.weight == source.tokens * source.factor * plan.weight_denominator
    length = sum(source.tokens * source.factor for source in plan.sources)
    assert float(length) == pytest.approx(sum(tokens.values()), rel=1e-5)


def test_temperature_one_keeps_natural_shares() -> None:
    factors = temperature_factors({"en": 10**12, "eu": 7, "xx": 0}, Fraction(1))
    assert factors.by_language == {"en": 1, "eu": 1, "xx": 0}
    with pytest.raises(DataError, match=r"temperature = 0.5 is below 1"):
        temperature_factors({"en": 1}, Fraction(1, 2))


def test_the_published_schedule_has_the_published_length_and_epochs() -> None:
    results = simulate(Schedule.load(RECIPES / "salamandra-schedule.yaml"), points=2)
    # max_steps x tokens per step of bsc_7b.yaml in github.com/langtech-bsc/salamandra, and of its first release.
    assert results[0].tokens == pytest.approx(1_736_777 * 4_194_304, rel=1e-6)
    assert sum(result.tokens for result in results) == pytest.approx(3_016_817 * 4_194_304, rel=1e-6)
    for result, passes in zip(results, (3, 2), strict=True):
        drawn = {point.language: point.phase_tokens for point in result.end}
        for language in result.languages:
            epochs = drawn[language.language] / language.available_tokens
            assert epochs == pytest.approx(passes * language.factor, rel=1e-3)
    epochs_of_b = {language: epochs for language, (_, epochs) in at_end(results).items()}
    assert epochs_of_b["en"] == pytest.approx(1, rel=1e-3)
    # Six passes over 202.0 billion tokens before four over 213.4 billion.
    assert epochs_of_b["es"] == pytest.approx(6 * 202.0105 / 213.4080 + 4, rel=1e-3)
    recipe = yaml.safe_load((RECIPES / "salamandra-pretraining.yaml").read_text())["languages"]
    for result, key in zip(results, ("corpus_a", "corpus_b"), strict=True):
        for language in result.languages:
            assert 100 * float(language.share) == pytest.approx(recipe[language.language][key], rel=1e-3)
            assert language.factor == Fraction(str(recipe[language.language]["factor"]))


def test_the_continued_training_mix_has_the_published_shares() -> None:
    (result,) = simulate(Schedule.load(RECIPES / "salamandra-continued-training-schedule.yaml"), points=1)
    shares = {language.language: 100 * float(language.share) for language in result.languages}
    published = {"fineweb-edu": 31.81, "es": 14.21, "ca": 3.24, "eu": 2.84, "gl": 1.29, "papers": 13.26}
    for language, share in published.items():
        assert shares[language] == pytest.approx(share, abs=0.005)
    assert result.tokens == pytest.approx(315e9, rel=1e-6)


@pytest.mark.parametrize("schedule", sorted(RECIPES.glob("*schedule.yaml")), ids=lambda path: path.stem)
def test_every_shipped_schedule_simulates(schedule: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "simulate", str(schedule), "--points", "1"]) == 0
    told = capsys.readouterr()
    assert "the run: " in told.out
    assert "of the factors file" not in told.err


def test_every_shipped_file_of_token_counts_loads() -> None:
    for name in ("salamandra-corpus-a", "salamandra-corpus-b", "salamandra-continued-training-counts"):
        counts = TokenCounts.load(RECIPES / f"{name}.yaml")
        assert counts.source and min(counts.tokens.values()) > 10**6
    assert TokenCounts.load(RECIPES / "salamandra-corpus-a.yaml").tokens["no"] == int(
        Decimal("9.5018") * 10**9
    )


def test_the_run_is_written_as_csv_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    schedule = write_schedule(tmp_path, phase(passes=3))
    assert main(["data", "simulate", str(schedule), "--out", str(tmp_path / "out"), "--points", "3"]) == 0
    warning = capsys.readouterr().err
    assert "walked more than 4 times" in warning and "ca 6.0" in warning and "eu 6.0" in warning
    results = simulate(Schedule.load(schedule), 3)
    assert (tmp_path / "out" / "simulation.csv").read_bytes() == simulation_csv(results)
    rows = list(csv.DictReader(io.StringIO(simulation_csv(results).decode())))
    assert len(rows) == 4 * 4 and sum(int(row["phase_tokens"]) for row in rows[-4:]) == results[0].tokens
    assert (tmp_path / "out" / "simulation.svg").read_text().startswith("<svg")
    assert repeated_languages(results, 10) == ""


def test_a_factor_for_a_language_without_text_is_told_as_blend_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = write_schedule(tmp_path, phase(), phase(name="two", token_counts="grown.yaml"))
    (tmp_path / "factors.yaml").write_text("factors: {hu: 4, eu: 2, en: 0}\n")
    assert main(["data", "simulate", str(schedule)]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert "warning: two: no text for 1 languages of the factors file: hu" in warnings
    assert "warning: one: left out by factor 0: en" in warnings
    assert not any(line.startswith("warning: one: no text") for line in warnings)


@pytest.mark.parametrize(
    ("scale", "heading", "basque"),
    [(1, "available ", "301"), (10**3, "available (M) ", "0.301"), (10**6, "available (B) ", "0.301")],
)
def test_the_table_counts_in_a_unit_in_which_small_languages_show(
    tmp_path: Path, scale: int, heading: str, basque: str
) -> None:
    schedule = write_schedule(tmp_path, phase())
    scaled = {language: tokens * scale for language, tokens in COUNTS.items()}
    (tmp_path / "counts.yaml").write_text(yaml.safe_dump({"source": "made up", "tokens": scaled}))
    (table,) = phase_tables(simulate(Schedule.load(schedule)))
    lines = table.splitlines()
    assert heading in lines[0]
    assert next(line for line in lines if line.startswith("eu ")).split()[1] == basque


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (phase(epochs=3), r"phases\[0\]: unknown key epochs"),
        (phase(tokens=3), "needs either passes or tokens; it has passes and tokens"),
        (phase(temperature=2), "needs either factors or temperature"),
        (phase(new_text=["xx"]), r"not there: \['xx'\]"),
        (phase(token_counts="none.yaml"), "none.yaml: no such file of token counts"),
        (phase(passes="many"), r"phases\[0\].passes = 'many' is not a number"),
        (phase(passes=0), "0 tokens are less than one sample"),
    ],
)
def test_a_wrong_schedule_is_refused_by_key(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        simulate(Schedule.load(write_schedule(tmp_path, entry)))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"tokens": {"en": 5}}, "source is missing"),
        ({"source": "s", "tokens": {"en": 0}}, "tokens.en = 0 is not above 0"),
        ({"source": "s", "tokens": {"en": "x"}}, "tokens.en = 'x' is not a number"),
        ({"source": "s", "billions": {"en": 1}}, "unknown key billions"),
        ({"source": "s"}, "below one of tokens"),
    ],
)
def test_wrong_token_counts_are_refused_by_key(
    tmp_path: Path, contents: dict[str, Any], message: str
) -> None:
    path = tmp_path / "counts.yaml"
    path.write_text(yaml.safe_dump(contents))
    with pytest.raises(DataError, match=message):
        TokenCounts.load(path)


def test_the_committed_figures_of_the_published_run_are_those_of_the_simulation() -> None:
    committed = Path(__file__).parents[2] / "docs" / "figures" / "salamandra-schedule.csv"
    results = simulate(Schedule.load(RECIPES / "salamandra-schedule.yaml"), points=1)
    assert committed.read_bytes() == simulation_csv(results)


def test_the_recipe_that_trains_is_what_the_schedule_says() -> None:
    """Corpus A and B of the preset with phases are those of the schedule of text alone, to whole steps."""
    schedule = simulate(Schedule.load(RECIPES / "salamandra-schedule.yaml"), points=1)
    recipe = simulate(Schedule.of_config(load_run_config("salamandra-7b-phases")), points=1)
    assert [result.name for result in recipe] == ["corpus_a", "corpus_b", "continued_training"]
    assert [result.tokens for result in recipe[:2]] == [1_736_777 * 4_194_304, 1_280_040 * 4_194_304]
    for told, trained in zip(schedule, recipe, strict=False):
        found = {point.source: point for point in trained.end}
        for point in told.end:
            assert found[point.source].total_tokens == pytest.approx(point.total_tokens, rel=1e-4)
            assert found[point.source].epochs == pytest.approx(point.epochs, rel=1e-4)


def test_windows_of_another_length_start_every_source_anew(tmp_path: Path) -> None:
    write_schedule(tmp_path, phase())
    expected = "{token_counts: counts.yaml, factors: factors.yaml}"
    path = tmp_path / "run.yaml"
    path.write_text(
        "extends: tiny\ndata: {sequence_length: 50}\nphases:\n"
        f"  short: {{steps: 4, expected: {expected}}}\n"
        f"  again: {{steps: 4, expected: {expected}}}\n"
        f"  long: {{steps: 4, sequence_length: 100, global_batch_size: 8, expected: {expected}}}\n"
    )
    first, again, long = simulate(Schedule.of_config(load_run_config(str(path))), points=1)
    assert [result.tokens for result in (first, again, long)] == [16 * 4 * 50] * 3
    epochs = [{point.source: point.epochs for point in result.end} for result in (first, again, long)]
    assert all(epochs[1][name] > epochs[0][name] for name in ("ca", "en"))
    assert epochs[2]["en"] == pytest.approx(epochs[0]["en"], rel=0.1)
    totals = {point.source: point.total_tokens for point in long.end}
    assert sum(totals.values()) == 3 * 16 * 4 * 50


def test_a_phase_that_says_nothing_of_its_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "simulate", "tiny"]) == 1
    assert "data says nothing of its text\n  name a blend plan: data.blend" in capsys.readouterr().err
