"""The closing table: what each language got and what it gained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.quickstart.errors import QuickstartError
from megatron_salamandra.run_directory import (
    RunDirectory,
    ValidationLog,
    ValidationRecord,
    read_state,
    resolve_checkpoint,
)
from salamandra_data.text_table import text_table

AVERAGES = ("macro", "micro")


@dataclass(frozen=True)
class LanguageResult:
    """One line of the table. Loss is in nats per token, on held-out text, before the first step and after the last."""

    language: str
    tokens: int
    epochs: float
    loss_before: float
    loss_after: float
    bits_per_byte_before: float
    bits_per_byte_after: float


def read_results(run: Path) -> list[LanguageResult]:
    """Results of a finished run, languages by name, then the averages.

    Raises:
        QuickstartError: the run was not validated before its first and after its last step.
    """
    state = read_state(resolve_checkpoint(run))
    ledger = {entry.language: entry for entry in state.ledger}
    path = RunDirectory(run).validation
    validated = _read_validation(path)
    before, after = validated.get(0), validated.get(state.step)
    if before is None or after is None:
        raise QuickstartError(
            f"{path}: no validation at step {0 if before is None else state.step}\n"
            "  leave validation.at_start and validation.at_end on"
        )
    total_tokens = sum(entry.tokens for entry in ledger.values())
    rows = [name for name in after if name not in AVERAGES] + [name for name in AVERAGES if name in after]
    return [
        LanguageResult(
            language=name,
            tokens=ledger[name].tokens if name in ledger else total_tokens,
            epochs=ledger[name].epochs if name in ledger else 0.0,
            loss_before=before[name].loss,
            loss_after=after[name].loss,
            bits_per_byte_before=before[name].bits_per_byte,
            bits_per_byte_after=after[name].bits_per_byte,
        )
        for name in rows
    ]


def closing_table(results: list[LanguageResult]) -> str:
    """The results as text."""
    heading = ("language", "tokens", "epochs", "loss before", "after", "bits/byte before", "after")
    rows = [_row(result) for result in results]
    return text_table(heading, rows)


def results_as_json(results: list[LanguageResult]) -> list[dict[str, Any]]:
    """The results as JSON values."""
    return [asdict(result) for result in results]


def _row(result: LanguageResult) -> tuple[str, ...]:
    return (
        result.language,
        f"{result.tokens:,}",
        "" if result.language in AVERAGES else f"{result.epochs:.3f}",
        f"{result.loss_before:.4f}",
        f"{result.loss_after:.4f}",
        f"{result.bits_per_byte_before:.4f}",
        f"{result.bits_per_byte_after:.4f}",
    )


def _read_validation(path: Path) -> dict[int, dict[str, ValidationRecord]]:
    """Scores by step and language; the last line of a pair counts."""
    scores: dict[int, dict[str, ValidationRecord]] = {}
    for record in ValidationLog(path).read():
        scores.setdefault(record.step, {})[record.language] = record
    return scores
