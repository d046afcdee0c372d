"""What a study measured: tables for the terminal, CSV, JSON, plots, and one page with all of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.figures import figure, html_page, png, svg
from salamandra_data.text_table import text_table
from salamandra_data.tokenizer_study.fertility import Fertility

COLUMNS = (
    "tokenizer",
    "language",
    "documents",
    "utf8_bytes",
    "words",
    "tokens",
    "fallback_tokens",
    "tokens_per_word",
    "tokens_per_byte",
    "fallback_share",
    "parity",
)


def tokenizer_names(results: Sequence[Fertility]) -> list[str]:
    """The tokenizers of a study in their order."""
    return list(dict.fromkeys(result.tokenizer for result in results))


def by_language(results: Sequence[Fertility]) -> dict[str, dict[str, Fertility]]:
    """Results by language, then tokenizer."""
    table: dict[str, dict[str, Fertility]] = {}
    for result in results:
        table.setdefault(result.language, {})[result.tokenizer] = result
    return table


def comparison(results: Sequence[Fertility]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heading, rows and means over the languages: of one tokenizer everything, of several the tokens per word."""
    names = tokenizer_names(results)
    return _everything(results) if len(names) == 1 else _tokens_per_word(results, names)


def _everything(results: Sequence[Fertility]) -> tuple[list[str], list[list[str]], list[str]]:
    heading = ["language", "words", "tokens/word", "tokens/byte", "byte fallback", "parity"]
    rows = [
        [
            result.language,
            f"{result.words:,}",
            f"{result.tokens_per_word:.3f}",
            f"{result.tokens_per_byte:.4f}",
            _or_dash(result.fallback_share, ".3%"),
            _or_dash(result.parity, ".2f"),
        ]
        for result in results
    ]
    shares = [result.fallback_share for result in results if result.fallback_share is not None]
    means = [
        "mean",
        "",
        f"{_mean([result.tokens_per_word for result in results]):.3f}",
        f"{_mean([result.tokens_per_byte for result in results]):.4f}",
        _or_dash(_mean(shares) if shares else None, ".3%"),
        "",
    ]
    return heading, rows, means


def _tokens_per_word(
    results: Sequence[Fertility], names: Sequence[str]
) -> tuple[list[str], list[list[str]], list[str]]:
    table = by_language(results)
    rows = [
        [
            language,
            f"{entries[names[0]].words:,}",
            *(f"{entries[name].tokens_per_word:.3f}" for name in names),
        ]
        for language, entries in table.items()
    ]
    means = [f"{_mean([entries[name].tokens_per_word for entries in table.values()]):.3f}" for name in names]
    return ["language", "words", *names], rows, ["mean", "", *means]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def fertility_table(results: Sequence[Fertility]) -> str:
    """For the terminal: see :func:`comparison`."""
    return text_table(*comparison(results))


def fertility_rows(results: Sequence[Fertility]) -> list[dict[str, Any]]:
    """Everything measured, with the ratios rounded to six digits."""
    return [
        {
            column: round(value, 6) if isinstance(value := getattr(result, column), float) else value
            for column in COLUMNS
        }
        for result in results
    ]


def fertility_csv(results: Sequence[Fertility]) -> bytes:
    """One line per tokenizer and language."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(fertility_rows(results))
    return stream.getvalue().encode()


def fertility_json(results: Sequence[Fertility], conditions: dict[str, Any]) -> bytes:
    """The rows below ``results``, and what they were measured on below ``conditions``."""
    contents = {"conditions": conditions, "results": fertility_rows(results)}
    return (json.dumps(contents, indent=1, ensure_ascii=False) + "\n").encode()


_MARKERS = "os^DvP*X"


def fertility_plot(results: Sequence[Fertility]) -> Any:
    """Tokens per word by language, one mark per tokenizer; the languages that cost most above."""
    table = by_language(results)
    names = tokenizer_names(results)
    languages = sorted(table, key=lambda language: table[language][names[0]].tokens_per_word)
    drawing, axes = figure(8, 1.2 + 0.22 * len(languages))
    for number, name in enumerate(names):
        values = [table[language][name].tokens_per_word for language in languages]
        axes.plot(values, languages, _MARKERS[number % len(_MARKERS)], label=name, markersize=5)
    axes.set_xlabel("tokens per word")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False)
    return drawing


def alpha_plot(results: Sequence[Fertility], alphas: Sequence[float], named: Sequence[str]) -> Any:
    """Tokens per word against alpha, relative to the largest alpha, with some languages named.

    Args:
        alphas: of the tokenizers in their order.
        named: languages that get a colour, a mark and a line in the legend, from the one that pays most for small
            alphas to the one that gains most.
    """
    table = by_language(results)
    names = tokenizer_names(results)
    order = sorted(range(len(alphas)), key=lambda number: alphas[number])
    base_alpha = f"alpha {alphas[order[-1]]:g}"

    def change(language: str) -> list[float]:
        costs = [table[language][names[number]].tokens_per_word for number in order]
        return [100 * (cost / costs[-1] - 1) for cost in costs]

    drawing, axes = figure(8, 5)
    positions = sorted(alphas)
    coloured = sorted((language for language in table if language in named), key=change, reverse=True)
    for number, language in enumerate(coloured):
        base = table[language][names[order[-1]]].tokens_per_word
        style = f"-{_MARKERS[number % len(_MARKERS)]}"
        # Hollow marks: two languages with the same values are both seen.
        axes.plot(
            positions,
            change(language),
            style,
            label=f"{language} {base:.2f}",
            markerfacecolor="none",
            zorder=3,
        )
    for number, language in enumerate(language for language in table if language not in named):
        label = "_" if number else "others"  # one line of the legend for all of them
        axes.plot(positions, change(language), color="#bbbbbb", linewidth=0.8, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("alpha: 0 uniform over languages, 1 natural")
    axes.set_ylabel(f"tokens per word, change from {base_alpha} (%)")
    axes.set_xticks(positions)
    title = f"tokens per word\nat {base_alpha}"
    axes.legend(frameon=False, fontsize=9, title=title, loc="upper left", bbox_to_anchor=(1, 1))
    return drawing


_TEMPLATE = """
{% for drawing in plots %}{{ plot(drawing) }}{% endfor %}
{% if heading | length > 2 %}<h2>Tokens per word</h2>{% endif %}
{{ table(heading, rows) }}
<h2>Conditions</h2>
{{ table(("", ""), conditions) }}
{% call folded("Everything measured") %}{{ table(columns, everything) }}{% endcall %}
"""


def write_study(
    out: Path,
    results: Sequence[Fertility],
    conditions: dict[str, Any],
    *,
    title: str = "Tokenizer fertility",
    more_plots: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write ``fertility.csv``, ``fertility.json``, plots as SVG and PNG, and ``index.html`` into ``out``.

    Args:
        conditions: what was measured, for whoever wants to do it again.
        more_plots: matplotlib figures by file name without ending; they come first on the page.
    Returns:
        the files.
    """
    heading, rows, means = comparison(results)
    plots = {**(more_plots or {}), "fertility": fertility_plot(results)}
    drawings = {name: svg(drawing) for name, drawing in plots.items()}
    everything = [
        ["-" if row[column] is None else f"{row[column]}" for column in COLUMNS]
        for row in fertility_rows(results)
    ]
    files = {
        "fertility.csv": fertility_csv(results),
        "fertility.json": fertility_json(results, conditions),
        "index.html": html_page(
            title,
            _TEMPLATE,
            plots=plots.values(),
            heading=heading,
            rows=[*rows, means],
            conditions=conditions.items(),
            columns=COLUMNS,
            everything=everything,
        ),
    }
    for name, drawing in plots.items():
        files[f"{name}.svg"] = drawings[name].encode()
        files[f"{name}.png"] = png(drawing)
    for name, contents in files.items():
        atomic_write_bytes(out / name, contents)
    return [out / name for name in files]
