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
    """Tokens per word against alpha, relative to natural sampling (alpha 1), with some languages named."""
    table = by_language(results)
    names = tokenizer_names(results)
    order = sorted(range(len(alphas)), key=lambda number: alphas[number])
    natural = names[order[-1]]
    drawing, axes = figure(8, 5)
    for language, entries in table.items():
        base = entries[natural].tokens_per_word
        change = [100 * (entries[names[number]].tokens_per_word / base - 1) for number in order]
        positions = [alphas[number] for number in order]
        if language in named:
            axes.plot(
                positions, change, "o-", label=f"{language} ({base:.2f} tokens/word at alpha 1)", zorder=3
            )
        else:
            axes.plot(positions, change, color="#bbbbbb", linewidth=0.8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("alpha: 0 uniform over languages, 1 natural")
    axes.set_ylabel("tokens per word, change from alpha 1 (%)")
    axes.set_xticks(sorted(alphas))
    axes.legend(frameon=False, fontsize=9)
    return drawing
