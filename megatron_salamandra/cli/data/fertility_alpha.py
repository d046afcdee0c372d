"""``salamandra data fertility-alpha``: tokenizers from uniform to natural shares of the languages, compared."""

from __future__ import annotations

import argparse
import sys

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.cli.data._natural_shares import add_natural_share_options
from megatron_salamandra.cli.data._options import (
    add_command,
    add_input_options,
    at_least_one,
    document_keys,
    place_to_write,
)

_NAMED = ("en", "es", "ca", "eu", "gl", "ga")


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    parser = add_command(
        commands,
        "fertility-alpha",
        _run,
        text="train tokenizers from uniform to natural shares of the languages and compare their fertility",
        description="Holds out documents, trains one tokenizer per alpha on the same number of bytes, where a "
        "language's part is proportional to its size to the power of alpha, and measures all of them on the held-out "
        "documents. Writes the tokenizers, CSV, JSON, plots and a page into --out.",
    )
    add_input_options(parser)
    parser.add_argument(
        "--vocab-size", type=at_least_one, required=True, metavar="N", help="ids of each tokenizer"
    )
    parser.add_argument(
        "--bytes-budget",
        type=at_least_one,
        required=True,
        metavar="N",
        help="text that each tokenizer is trained on; memory is about six times this",
    )
    parser.add_argument(
        "--alphas",
        nargs="+",
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0],
        metavar="A",
        help="0: as many bytes of each language; 1: natural shares (default: 0 0.25 0.5 0.75 1)",
    )
    add_natural_share_options(parser)
    parser.add_argument(
        "--max-repeats",
        type=float,
        default=8.0,
        metavar="X",
        help="how often the text of a language may be repeated to fill its part (default: 8)",
    )
    parser.add_argument(
        "--held-out-fraction",
        type=float,
        default=0.05,
        metavar="F",
        help="share of the documents that is measured on (default: 0.05)",
    )
    parser.add_argument(
        "--name-languages",
        nargs="*",
        metavar="XX",
        help="languages with a name in the plot (default: those of en es ca eu gl ga that there is text of)",
    )
    parser.add_argument(
        "--out", type=place_to_write, required=True, metavar="DIR", help="directory for everything"
    )


def _run(arguments: argparse.Namespace) -> int:
    from salamandra_data.figures import check_matplotlib
    from salamandra_data.tokenizer import natural_sizes
    from salamandra_data.tokenizer_study import (
        AlphaExperiment,
        StudyDocuments,
        alpha_plot,
        fertility_table,
        run_alpha_experiment,
        write_study,
    )

    check_matplotlib()
    sizes = natural_sizes(arguments.language_sizes, arguments.factors)
    experiment = AlphaExperiment(
        vocab_size=arguments.vocab_size,
        bytes_budget=arguments.bytes_budget,
        alphas=arguments.alphas,
        language_sizes=sizes.tokens if sizes else None,
        max_repeats=arguments.max_repeats,
        held_out_fraction=arguments.held_out_fraction,
        seed=arguments.seed,
        expected_languages=arguments.name_languages or (),
    )
    documents = StudyDocuments(
        arguments.input, document_keys(arguments), arguments.on_error == "skip", arguments.out
    )
    results = run_alpha_experiment(
        experiment, documents, arguments.out, report=lambda line: print(line, file=sys.stderr)
    )
    print(fertility_table(results))
    if documents.malformed_lines:
        print(f"malformed lines passed over: {documents.malformed_lines:,}")
    conditions = {
        "vocab_size": experiment.vocab_size,
        "training_bytes": experiment.bytes_budget,
        "natural_shares": sizes.source if sizes else "bytes of the training text",
        "max_repeats": experiment.max_repeats,
        "held_out_fraction": experiment.held_out_fraction,
        "held_out_bytes_per_language": experiment.held_out_bytes,
        "seed": experiment.seed,
        "malformed_lines_passed_over": documents.malformed_lines,
    }
    named = _NAMED if arguments.name_languages is None else arguments.name_languages
    plots = {"alpha": alpha_plot(results, experiment.alphas, named)}
    for path in write_study(arguments.out, results, conditions, title="Fertility by alpha", more_plots=plots):
        print(path)
    return 0
