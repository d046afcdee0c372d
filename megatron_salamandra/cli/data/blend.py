"""``salamandra data blend``: weigh languages by factors or by temperature."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megatron_salamandra.cli.data._options import Subparsers, add_command, at_least_one, place_to_write


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "blend",
        _run,
        text="weigh the languages of shards by factors or temperature and write a blend plan",
        description="Reads shard manifests and a file of language factors (or takes a temperature), prints what each "
        "language gets, and writes the plan that training reads.",
    )
    parser.add_argument(
        "--shards",
        nargs="+",
        required=True,
        metavar="DIR",
        help="directories of shards, or prefixes of single shards",
    )
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--factors",
        type=Path,
        metavar="FILE",
        help="YAML: language to factor (how often it is walked per pass; 0 leaves it out), also below `languages:` "
        "or `factors:`; `default:` is for the others (1 if absent)",
    )
    weights.add_argument(
        "--temperature",
        metavar="T",
        help="a language's share is proportional to its tokens to the power of 1/T, realised as factors; 1: natural "
        "shares",
    )
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="FILE", help="the plan, a YAML file"
    )
    parser.add_argument(
        "--budget-tokens", type=at_least_one, metavar="N", help="length of the run (default: one pass)"
    )
    parser.add_argument(
        "--max-epochs",
        type=float,
        default=4.0,
        metavar="X",
        help="warn about languages walked more often (default: 4)",
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="MODEL", help="the shards' tokenizer, if it is not beside them"
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.blend_plan import LanguageFactors, build_plan, reweighted, temperature_factors
    from salamandra_data.blend_plan.factors import parse_factor
    from salamandra_data.blend_plan.report import blend_table, blend_warnings

    if arguments.factors:
        factors = LanguageFactors.load(arguments.factors)
        plan = build_plan(arguments.shards, factors, tokenizer=arguments.tokenizer)
    else:
        temperature = parse_factor(arguments.temperature, "--temperature")
        natural = build_plan(arguments.shards, LanguageFactors({}), tokenizer=arguments.tokenizer)
        factors = temperature_factors(
            {source.language: source.tokens for source in natural.sources}, temperature
        )
        plan = reweighted(natural, factors)
    print(blend_table(plan, arguments.budget_tokens))
    for warning in blend_warnings(
        plan, factors, budget_tokens=arguments.budget_tokens, max_epochs=arguments.max_epochs
    ):
        print(f"warning: {warning}", file=sys.stderr)
    plan.save(arguments.out)
    print(f"{arguments.out}: {len(plan.sources)} sources, fingerprint {plan.fingerprint()[:16]}")
    return 0
