"""Uniform training helps the small languages; the experiment that shows it is fair, and its guide says what it gave."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from declaration import ARTICLE_1, ARTICLE_1_ELSEWHERE
from json_lines import write_json_lines

from megatron_salamandra.cli import main
from salamandra_data.blend_plan import TokenCounts
from salamandra_data.errors import DataError
from salamandra_data.tokenizer_study import AlphaExperiment, Fertility, StudyDocuments, run_alpha_experiment
from salamandra_data.tokenizer_study.alpha_experiment import hold_out
from salamandra_data.tokenizer_study.report import alpha_plot

GALICIAN = (
    "Todos os seres humanos nacen libres e iguais en dignidade e dereitos e, dotados como están de razón e "
    "conciencia, díbense comportar fraternalmente uns cos outros."
)


def small_corpus(path: Path) -> Path:
    """Four languages with a lexicon of 1,500 words each, made of the letter sequences of real words."""
    chance = random.Random(5)
    texts = {**ARTICLE_1, **ARTICLE_1_ELSEWHERE, "gl": GALICIAN}
    documents = []
    for language in ("en", "eu", "ga", "gl"):
        words = texts[language].lower().split()
        parts = sorted({word[:3] for word in words} | {word[-3:] for word in words})
        lexicon = ["".join(chance.choices(parts, k=3)) for _ in range(1500)]
        for _ in range(120):
            documents.append({"text": " ".join(chance.choices(lexicon, k=80)), "language": language})
    return write_json_lines(path, documents)


def test_uniform_training_costs_english_less_than_it_gives_to_small_languages(tmp_path: Path) -> None:
    experiment = AlphaExperiment(
        vocab_size=1200,
        bytes_budget=200_000,
        alphas=(0.0, 0.5, 1.0),
        language_sizes={"en": 10_000, "gl": 300, "eu": 200, "ga": 10},
        held_out_fraction=0.2,
    )
    out = tmp_path / "run=1"
    documents = StudyDocuments([small_corpus(tmp_path / "corpus.jsonl")])
    results = run_alpha_experiment(experiment, documents, out, report=list)
    cost = {(result.tokenizer, result.language): result.tokens_per_word for result in results}
    for language in ("eu", "ga", "gl"):
        assert cost["alpha 0", language] < cost["alpha 0.5", language] < cost["alpha 1", language]
    assert cost["alpha 0", "en"] > cost["alpha 1", "en"]
    loss = cost["alpha 0", "en"] / cost["alpha 1", "en"]
    assert loss < cost["alpha 1", "ga"] / cost["alpha 0", "ga"]
    used = [
        json.loads((out / f"alpha-{alpha}" / "training.json").read_text())["languages"]
        for alpha in ("0", "0.5", "1")
    ]
    for languages in used:  # the same number of bytes for each
        assert sum(entry["used_bytes"] for entry in languages.values()) == pytest.approx(200_000, rel=0.05)


def test_the_alpha_plot_compares_with_the_largest_alpha_that_was_tried() -> None:
    pytest.importorskip("matplotlib")
    costs = {"alpha 0.5": {"en": 100, "eu": 150}, "alpha 0": {"en": 110, "eu": 120}}
    results = [
        Fertility(tokenizer, language, 1, 400, 100, tokens, 0)
        for tokenizer, by_language in costs.items()
        for language, tokens in by_language.items()
    ]
    (axes,) = alpha_plot(results, [0.5, 0.0], ["eu"]).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    basque = lines["eu 1.50"]
    assert list(basque.get_xdata()) == [0, 0.5] and list(basque.get_ydata()) == pytest.approx([-20, 0])
    assert list(lines["others"].get_ydata()) == pytest.approx([10, 0])
    assert axes.get_ylabel() == "tokens per word, change from alpha 0.5 (%)"
    assert axes.get_legend().get_title().get_text() == "tokens per word\nat alpha 0.5"


def test_a_language_to_be_named_without_text_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = small_corpus(tmp_path / "c.jsonl"), tmp_path / "out"
    command = [
        "data",
        "fertility-alpha",
        "--input",
        str(path),
        "--vocab-size",
        "800",
        "--bytes-budget",
        "50000",
    ]
    assert main([*command, "--out", str(out), "--name-languages", "eu", "zz"]) == 1
    error = capsys.readouterr().err
    assert (
        "--name-languages zz: the input holds no text" in error and "there is text of en, eu, ga, gl" in error
    )
    assert "tokenizer 1 of" not in error and not list(out.rglob("*.model"))


def test_an_experiment_without_held_out_text_in_a_language_is_refused(tmp_path: Path) -> None:
    documents = [{"text": f"{number}", "language": "en"} for number in range(100)]
    path = write_json_lines(tmp_path / "c.jsonl", [*documents, {"text": "bat", "language": "eu"}])
    with pytest.raises(DataError, match="too few documents in eu"):
        run_alpha_experiment(
            AlphaExperiment(1000, 1000), StudyDocuments([path]), tmp_path / "out", report=list
        )


@pytest.mark.parametrize("alphas", [["1"], ["0", "0"], ["0", "1.5"]])
def test_alphas_that_cannot_be_compared_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alphas: list[str]
) -> None:
    command = ["data", "fertility-alpha", "--input", "nowhere", "--vocab-size", "900", "--bytes-budget", "9"]
    assert main([*command, "--out", str(tmp_path / "out"), "--alphas", *alphas]) == 1
    assert "two or more different values" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_malformed_lines_end_a_study_or_are_counted_and_passed_over(
    tmp_path: Path, small_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_corpus(tmp_path / "c.jsonl")
    with path.open("a") as stream:
        stream.write('{"text": 1}\n' * 1234)
    fertility = ["--tokenizers", str(small_tokenizer)]
    alpha = [
        "--vocab-size",
        "800",
        "--bytes-budget",
        "50000",
        "--alphas",
        "0",
        "1",
        "--held-out-fraction",
        "0.2",
    ]
    for name, options in (("fertility", fertility), ("fertility-alpha", alpha)):
        command = ["data", name, "--input", str(path), *options, "--out", str(tmp_path / name)]
        assert main(command) == 1 and "'text' is a number" in capsys.readouterr().err
        assert main([*command, "--on-error", "skip"]) == 0
        assert "malformed lines passed over: 1,234\n" in capsys.readouterr().out
        contents = json.loads((tmp_path / name / "fertility.json").read_text())
        assert contents["conditions"]["malformed_lines_passed_over"] == 1234


def test_held_out_text_shares_no_line_with_the_training_text(tmp_path: Path) -> None:
    documents = [{"text": f"licence\nown line {number}\n", "language": "en"} for number in range(200)]
    path = write_json_lines(tmp_path / "c.jsonl", documents)
    sizes = hold_out(StudyDocuments([path]), 0.2, tmp_path / "training.jsonl", tmp_path / "held-out.jsonl")
    sides = [
        {
            line
            for row in (tmp_path / name).read_text().splitlines()
            for line in json.loads(row)["text"].split("\n")
        }
        for name in ("training.jsonl", "held-out.jsonl")
    ]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {"licence", ""} | {
        f"own line {number}" for number in range(200)
    }
    assert 20 < len(sides[1]) < 60 and sizes.held_out_bytes == {"en": sum(map(len, sides[1]))}


DOCS = Path(__file__).parents[3] / "docs"
ALPHAS = ("0", "0.25", "0.5", "0.75", "1")
NAMES = {"Irish": "ga", "Basque": "eu", "Galician": "gl", "Catalan": "ca", "Spanish": "es", "English": "en"}


def measured(run: str, column: str = "tokens_per_word") -> dict[str, dict[str, float]]:
    """One column of a committed run, by alpha and language."""
    table: dict[str, dict[str, float]] = {}
    with (DOCS / "figures" / f"fertility-alpha{run}.csv").open() as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["tokenizer"].removeprefix("alpha "), {})[row["language"]] = float(
                row[column]
            )
    return table


def percent(change: float) -> str:
    return f"{100 * change:+.1f} %".replace("-", "\u2212")


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def test_real_text_shows_what_uniform_training_gives_and_costs() -> None:
    cost = measured("")
    for language in ("ga", "eu", "gl"):
        assert cost["0"][language] < cost["1"][language]
    assert 1 < cost["0"]["en"] / cost["1"]["en"] < 1.05
    sizes = TokenCounts.load(DOCS.parent / "configs" / "data" / "salamandra-corpus-a.yaml").tokens
    largest = sorted(sizes, key=lambda language: sizes[language])[-10:]
    assert {language for language in sizes if cost["0"][language] > cost["1"][language]} == set(largest)


def test_the_guide_says_what_was_measured() -> None:
    guide = (DOCS / "guides" / "tokenizer-study.md").read_text(encoding="utf-8")
    cost = measured("")
    for name, language in NAMES.items():
        values = [cost[alpha][language] for alpha in ALPHAS]
        cells = [f"{value:.3f}" for value in values]
        assert f"| {' | '.join([name, *cells, percent(values[0] / values[-1] - 1)])} |" in guide
    means = [mean(cost[alpha].values()) for alpha in ALPHAS]
    cells = [f"{value:.3f}" for value in means]
    assert f"| {' | '.join(['mean of 36', *cells, percent(means[0] / means[-1] - 1)])} |" in guide
    changes = {language: percent(cost["0"][language] / cost["1"][language] - 1) for language in cost["0"]}
    for text in ("Irish ({ga})", "Welsh ({cy})", "Russian ({ru})", "Hungarian ({hu})", "German ({de})"):
        assert text.format(**changes) in guide
    fallback = measured("", "fallback_share")
    for alpha, language, text in (
        ("0", "el", "{} of the Greek tokens"),
        ("1", "el", "more of them, {}"),
        ("1", "mt", "\u010b, {}"),
    ):
        assert text.format(f"{100 * fallback[alpha][language]:.1f} %") in guide
    assert f"pays {percent(cost['0.25']['en'] / cost['1']['en'] - 1)} instead of {changes['en']}" in guide


def test_the_guide_compares_the_runs_as_they_were_measured() -> None:
    guide = (DOCS / "guides" / "tokenizer-study.md").read_text(encoding="utf-8")
    runs = [measured(run) for run in ("", "-64k", "-blend")]
    rows = {
        name: [percent(run["0"][language] / run["1"][language] - 1) for run in runs]
        for name, language in NAMES.items()
    }
    rows["languages that gain"] = [
        str(sum(run["0"][language] < run["1"][language] for language in run["0"])) for run in runs
    ]
    rows["dearest over cheapest language"] = [
        " against ".join(f"{max(run[alpha].values()) / min(run[alpha].values()):.2f}" for alpha in ("0", "1"))
        for run in runs
    ]
    rows["mean parity with English"] = [
        " against ".join(f"{mean(measured(run, 'parity')[alpha].values()):.2f}" for alpha in ("0", "1"))
        for run in ("", "-64k", "-blend")
    ]
    for name, cells in rows.items():
        assert f"| {' | '.join([name, *cells])} |" in guide
