"""What a blend means in tokens and epochs, as a table for people."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.blend_plan.plan import BlendPlan
from salamandra_data.blend_plan.plan_file import factor_text
from salamandra_data.text_table import text_table


@dataclass(frozen=True)
class SourceDraw:
    """What one source gives to a run of ``budget_tokens``: exact share, tokens drawn, times walked."""

    source: str
    share: Fraction
    tokens_drawn: Fraction
    epochs: Fraction


def pass_tokens(plan: BlendPlan) -> Fraction:
    """Tokens of one pass over the blend, in which each source is walked ``factor`` times."""
    return Fraction(plan.total_weight, plan.weight_denominator)


def draws(plan: BlendPlan, budget_tokens: int | None = None) -> list[SourceDraw]:
    """Each source's part of a run; without a budget, of one pass over the blend."""
    budget = pass_tokens(plan) if budget_tokens is None else Fraction(budget_tokens)
    return [
        SourceDraw(
            source=source.name,
            share=(share := Fraction(source.weight, plan.total_weight)),
            tokens_drawn=share * budget,
            epochs=share * budget / source.tokens,
        )
        for source in plan.sources
    ]


def blend_table(plan: BlendPlan, budget_tokens: int | None = None) -> str:
    """One line per language: available, factor, share, drawn and epochs; largest share first."""
    rows = [
        (
            source.name,
            f"{source.tokens:,}",
            factor_text(source.factor),
            f"{float(draw.share):.5%}",
            f"{round(draw.tokens_drawn):,}",
            f"{float(draw.epochs):.3f}",
            f"{source.validation_tokens:,}",
            str(len(source.shards)),
        )
        for source, draw in zip(plan.sources, draws(plan, budget_tokens), strict=True)
    ]
    rows.sort(key=lambda row: -plan.share(row[0]))
    total = sum(draw.tokens_drawn for draw in draws(plan, budget_tokens))
    total_row = (
        "all",
        f"{sum(source.tokens for source in plan.sources):,}",
        "",
        "100.00000%",
        f"{round(total):,}",
        "",
        f"{sum(source.validation_tokens for source in plan.sources):,}",
        str(sum(len(source.shards) for source in plan.sources)),
    )
    heading = (
        "language",
        "tokens available",
        "factor",
        "share",
        "tokens drawn",
        "epochs",
        "validation",
        "shards",
    )
    return text_table(heading, rows, total_row)


def blend_warnings(
    plan: BlendPlan, factors: LanguageFactors, *, budget_tokens: int | None = None, max_epochs: float = 4.0
) -> list[str]:
    """What a user should know before training: missing languages, languages left out, many repeats."""
    warnings = factor_warnings(plan, factors)
    for draw in draws(plan, budget_tokens):
        if draw.epochs > max_epochs:
            warnings.append(
                f"{draw.source} is walked {float(draw.epochs):.2f} times, more than {max_epochs:g}"
            )
    return warnings


def factor_warnings(plan: BlendPlan, factors: LanguageFactors) -> list[str]:
    """Where the factors and the plan made by them name other languages."""
    warnings: list[str] = []
    wanted = {language for language, factor in factors.by_language.items() if factor > 0}
    named = {source.name: factors.entry(source.language, source.name) for source in plan.sources}
    if missing := sorted(wanted - {entry for entry in named.values() if entry is not None}):
        warnings.append(f"no text for {len(missing)} languages of the factors file: {', '.join(missing)}")
    if left_out := sorted(factors.by_language.keys() - wanted):
        warnings.append(f"left out by factor 0: {', '.join(left_out)}")
    if factors.default == 0:
        warnings.append("the default factor is 0: languages that the factors file does not name are left out")
    if unnamed := sorted(name for name, entry in named.items() if entry is None):
        warnings.append(
            f"not named in the factors file, so of the default factor {float(factors.default):g}: {', '.join(unnamed)}"
        )
    return warnings
