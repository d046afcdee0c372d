"""The alpha experiment: how the mix of languages a tokenizer is trained on decides what each language costs.

Tokenizers are trained on the same number of bytes, in which a language's part is proportional to ``size ** alpha``,
from alpha 0 (as much of every language) to alpha 1 (natural shares), and measured on lines that none has seen.

The documents measured on have no line in common with those trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_file
from salamandra_data.errors import DataError
from salamandra_data.readers import Document, mark_by_products
from salamandra_data.tokenization import is_validation
from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer
from salamandra_data.tokenizer_study.encoders import open_tokenizer
from salamandra_data.tokenizer_study.fertility import Fertility, measure_fertility
from salamandra_data.tokenizer_study.texts import StudyDocuments, check_languages, read_language_text

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
    if isinstance(documents, StudyDocuments):
        documents.files()  # what cannot be read is found before anything is written
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


@dataclass(frozen=True)
class HeldOut:
    """What is on either side: bytes of text by language."""

    training_bytes: dict[str, int]
    held_out_bytes: dict[str, int]


def hold_out(documents: Iterable[Document], fraction: float, training: Path, held_out: Path) -> HeldOut:
    """Write two files of JSON lines: documents to train on, and a share of all that is held out.

    Equal texts are on the same side. Held-out documents lose the lines that the training documents hold too, such as
    headings and licences; memory is that of the hashes of the held-out lines.

    Raises:
        DataError: a language with nothing on one side.
    """
    if not 0 < fraction < 1:
        raise DataError(f"held-out fraction = {fraction:g} is not between 0 and 1")
    kept: Counter[str] = Counter()
    aside: list[Document] = []
    with atomic_file(training) as stream:
        for document in documents:
            if is_validation(document.text, fraction):
                aside.append(document)
            else:
                kept[document.language] += len(document.text)
                stream.write(_line(document.text, document.language))
    known = _lines_in_common(aside, training)
    left: Counter[str] = Counter()
    with atomic_file(held_out) as stream:
        for document in aside:
            lines = [line for line in document.text.split(b"\n") if _digest(line) not in known]
            if text := b"\n".join(lines):
                left[document.language] += len(text)
                stream.write(_line(text, document.language))
    languages = {*kept, *(document.language for document in aside)}
    if missing := sorted(language for language in languages if not (kept[language] and left[language])):
        raise DataError(
            f"too few documents in {', '.join(missing)} to train on some and hold out others\n"
            "  give more text of them, leave them out, or change --held-out-fraction"
        )
    return HeldOut(dict(kept), dict(left))


def _lines_in_common(aside: list[Document], training: Path) -> set[bytes]:
    """Digests of the held-out lines that occur in the training file."""
    wanted = {_digest(line) for document in aside for line in document.text.split(b"\n")}
    return {
        digest
        for document in StudyDocuments([training])
        for line in document.text.split(b"\n")
        if (digest := _digest(line)) in wanted
    }


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=8).digest()


def _line(text: bytes, language: str) -> bytes:
    return orjson.dumps({"text": text.decode(), "language": language}) + b"\n"
