"""``salamandra data blend``: weigh languages by factors or by temperature."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, OneOf, Option, Options, PathPattern
from salamandra_data.option_groups import NamedPath, OutputPath

_WEIGHTS = OneOf(required=True)


class BlendOptions(Options):
    """The options of ``salamandra data blend``."""

    shards: Annotated[
        tuple[PathPattern, ...],
        Option("directories of shards, or prefixes of single shards: one source per language", metavar="DIR"),
    ] = ()
    source: Annotated[
        tuple[NamedPath, ...],
        Option(
            "shards that are a source of their own, such as wiki-ca=shards/wiki or aya:instructions=shards/aya; "
            "{language} in NAME makes a source of each language",
            metavar="NAME[:KIND]=DIR",
        ),
    ] = ()
    factors: Annotated[
        Path | None,
        Option(
            "YAML: language or source to factor (how often it is walked per pass; 0 leaves it out), also below "
            "`languages:` or `factors:`; `default:` is for the others (1 if absent)",
            metavar="FILE",
            one_of=_WEIGHTS,
        ),
    ] = None
    temperature: Annotated[
        str | None,
        Option(
            "a language's share is proportional to its tokens to the power of 1/T, realised as factors; 1: natural "
            "shares",
            metavar="T",
            one_of=_WEIGHTS,
        ),
    ] = None
    out: Annotated[OutputPath, Option("the plan, a YAML file", metavar="FILE")]
    budget_tokens: Annotated[Count | None, Option("length of the run (default: one pass)")] = None
    max_epochs: Annotated[float, Field(gt=0), Option("warn about languages walked more often")] = 4.0
    tokenizer: Annotated[
        Path | None, Option("the shards' tokenizer, if it is not beside them", metavar="MODEL")
    ] = None


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "blend",
        lambda: BlendOptions,
        _run,
        text="weigh the languages of shards by factors or temperature and write a blend plan",
        description="Reads shard manifests and a file of language factors (or takes a temperature), prints what each "
        "language gets, and writes the plan that training reads.",
    )


def _run(options: BlendOptions) -> int:
    from salamandra_data.blend_plan import (
        LanguageFactors,
        NamedSource,
        blend_table,
        blend_warnings,
        build_plan,
        parse_factor,
        reweighted,
        temperature_factors,
    )
    from salamandra_data.errors import DataError

    shards = list(options.shards)
    if not shards and not options.source:
        raise DataError("no shards are given\n  name directories with --shards or --source")
    sources = [NamedSource.parse(text) for text in options.source]
    if options.temperature is None:
        assert options.factors is not None  # the options have one of the two
        factors = LanguageFactors.load(options.factors)
        plan = build_plan(shards, factors, sources=sources, tokenizer=options.tokenizer)
    else:
        temperature = parse_factor(options.temperature, "--temperature")
        natural = build_plan(shards, LanguageFactors({}), sources=sources, tokenizer=options.tokenizer)
        factors = temperature_factors({source.name: source.tokens for source in natural.sources}, temperature)
        plan = reweighted(natural, factors)
    print(blend_table(plan, options.budget_tokens))
    for warning in blend_warnings(
        plan, factors, budget_tokens=options.budget_tokens, max_epochs=options.max_epochs
    ):
        print(f"warning: {warning}", file=sys.stderr)
    plan.save(options.out)
    print(f"{options.out}: {len(plan.sources)} sources, fingerprint {plan.fingerprint()[:16]}")
    return 0
