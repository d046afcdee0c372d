"""The alpha experiment: how the mix of languages a tokenizer is trained on decides what each language costs.

Tokenizers are trained on the same number of bytes, in which a language's part is proportional to ``size ** alpha``,
from alpha 0 (as much of every language) to alpha 1 (natural shares), and measured on lines that none has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, mark_by_products
from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer
from salamandra_data.tokenizer_study.encoders import open_tokenizer
from salamandra_data.tokenizer_study.fertility import Fertility, measure_fertility
from salamandra_data.tokenizer_study.held_out import hold_out
from salamandra_data.tokenizer_study.language_text import check_languages, read_language_text
from salamandra_data.tokenizer_study.study_documents import StudyDocuments

TRAINING_FILE, HELD_OUT_FILE = "training.jsonl", "held-out.jsonl"


@dataclass(frozen=True)
class AlphaExperiment:
    """What to compare and how.

    Attributes:
        vocab_size: of every tokenizer.
        bytes_budget: training text of every tokenizer, repeats included.
        alphas: exponents on the languages' sizes, each between 0 and 1.
        language_sizes: what alpha 1 is proportional to; default the bytes of the training text.
        held_out_fraction: share of the documents that are only measured on, chosen by their text; lines that
            the other documents hold too do not count.
        held_out_bytes: text of each language that is measured at most.
        expected_languages: refused before any training if there is no text of them.
    """

    vocab_size: int
    bytes_budget: int
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
    language_sizes: Mapping[str, int] | None = None
    max_repeats: float = 8.0
    held_out_fraction: float = 0.05
    held_out_bytes: int = 500_000
    seed: int = 0
    expected_languages: Sequence[str] = ()


def run_alpha_experiment(
    experiment: AlphaExperiment,
    documents: Iterable[Document],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Fertility]:
    """Split the documents, train one tokenizer per alpha below ``out``, and measure all on the held-out text.

    Raises:
        DataError: bad input, alphas that cannot be compared, or a language of which nothing was held out.
    """
    alphas = experiment.alphas
    if len(alphas) < 2 or len(set(alphas)) < len(alphas) or not all(0 <= alpha <= 1 for alpha in alphas):
        raise DataError(
            f"alphas = {', '.join(f'{alpha:g}' for alpha in alphas)}: two or more different values are compared, from "
            "0 (uniform over languages) to 1 (natural shares)"
        )
    training, held_out = out / TRAINING_FILE, out / HELD_OUT_FILE
    mark_by_products(out, (TRAINING_FILE, HELD_OUT_FILE))
    sides = hold_out(documents, experiment.held_out_fraction, training, held_out)
    check_languages("--name-languages", experiment.expected_languages, sides.held_out_bytes)
    report(
        f"{sum(sides.training_bytes.values()):,} bytes of text to train on, "
        f"{sum(sides.held_out_bytes.values()):,} held out"
    )
    models: dict[str, Path] = {}
    for number, alpha in enumerate(alphas, start=1):
        report(f"tokenizer {number} of {len(alphas)}: alpha {alpha:g}")
        job = TokenizerTraining(
            inputs=[training],
            vocab_size=experiment.vocab_size,
            alpha=alpha,
            budget_bytes=experiment.bytes_budget,
            max_repeats=experiment.max_repeats,
            seed=experiment.seed,
            language_sizes=experiment.language_sizes,
        )
        models[f"alpha {alpha:g}"] = train_tokenizer(job, out / f"alpha-{alpha:g}").model
    texts = read_language_text(StudyDocuments([held_out]), max_bytes=experiment.held_out_bytes)
    tokenizers = [open_tokenizer(model, name) for name, model in models.items()]
    return measure_fertility(tokenizers, texts, report=report)
