"""A study as tables for the terminal, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

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
