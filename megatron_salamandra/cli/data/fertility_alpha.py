"""``salamandra data fertility-alpha``: tokenizers from uniform to natural shares of the languages, compared."""

from __future__ import annotations

import sys
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, Options
from salamandra_data.option_groups import InputOptions, NaturalShareOptions, OutputPath

_NAMED = ("en", "es", "ca", "eu", "gl", "ga")


class FertilityAlphaOptions(Options):
    """The options of ``salamandra data fertility-alpha``."""

    documents: InputOptions
    seed: Annotated[int, Option("decides every random choice")] = 0
    vocab_size: Annotated[Count, Option("ids of each tokenizer")]
    bytes_budget: Annotated[
        Count, Option("text that each tokenizer is trained on; memory is about six times this")
    ]
    alphas: Annotated[
        tuple[float, ...], Option("0: as many bytes of each language; 1: natural shares", metavar="A")
    ] = (0.0, 0.25, 0.5, 0.75, 1.0)
    natural: NaturalShareOptions
    max_repeats: Annotated[
        float, Option("how often the text of a language may be repeated to fill its part")
    ] = 8.0
    held_out_fraction: Annotated[float, Option("share of the documents that is measured on", metavar="F")] = (
        0.05
    )
    name_languages: Annotated[
        tuple[str, ...] | None,
        Option(
            "languages with a name in the plot (default: those of en es ca eu gl ga that there is text of)",
            metavar="XX",
            may_be_empty=True,
        ),
    ] = None
    out: Annotated[OutputPath, Option("directory for everything", metavar="DIR", decides_output=False)]


def register(commands: Subparsers) -> None:
    """Add the command to ``salamandra data``."""
    add_command(
        commands,
        "fertility-alpha",
        lambda: FertilityAlphaOptions,
        _run,
        text="train tokenizers from uniform to natural shares of the languages and compare their fertility",
        description="Holds out documents, trains one tokenizer per alpha on the same number of bytes, where a "
        "language's part is proportional to its size to the power of alpha, and measures all of them on the held-out "
        "documents. Writes the tokenizers, CSV, JSON, plots and a page into --out.",
    )


def _run(options: FertilityAlphaOptions) -> int:
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
    sizes = natural_sizes(options.natural.language_sizes, options.natural.factors)
    experiment = AlphaExperiment(
        vocab_size=options.vocab_size,
        bytes_budget=options.bytes_budget,
        alphas=options.alphas,
        language_sizes=sizes.tokens if sizes else None,
        max_repeats=options.max_repeats,
        held_out_fraction=options.held_out_fraction,
        seed=options.seed,
        expected_languages=options.name_languages or (),
    )
    given = options.documents
    documents = StudyDocuments(list(given.input), given.keys, given.skip_malformed, options.out)
    results = run_alpha_experiment(
        experiment, documents, options.out, report=lambda line: print(line, file=sys.stderr)
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
    named = _NAMED if options.name_languages is None else options.name_languages
    plots = {"alpha": alpha_plot(results, experiment.alphas, named)}
    for path in write_study(options.out, results, conditions, title="Fertility by alpha", more_plots=plots):
        print(path)
    return 0
