"""Fertility as plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salamandra_data.figures import figure
from salamandra_data.tokenizer_study.fertility import Fertility
from salamandra_data.tokenizer_study.report import by_language, tokenizer_names

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
