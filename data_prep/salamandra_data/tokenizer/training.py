"""Tokenizer training: survey the text, sample lines by language, train, and write the files."""

from __future__ import annotations

import io
import json
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.credentials import without_credentials
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.languages import known_language
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, find_inputs
from salamandra_data.storage import Location
from salamandra_data.text_table import text_table
from salamandra_data.tokenizer.language_sampling import LanguageSample, plan_sampling
from salamandra_data.tokenizer.nfc_rules import nfc_rules_tsv
from salamandra_data.tokenizer.recipe import FIRST_BPE_ID, is_learnt_from, trainer_options

FORMAT = "salamandra-tokenizer-1"
DEFAULT_MAX_BUDGET_BYTES = 1 << 30
_RULES_NAME = "nfc.tsv"
_TRAINING_THREADS = 2  # is written into the model: fixed, so that its bytes are the same on every machine


@dataclass(frozen=True)
class TokenizerTraining:
    """What to train on and how.

    Attributes:
        inputs: files, directories or patterns.
        vocab_size: number of ids, the 391 fixed ones included.
        keys: where text and language are in a record.
        alpha: 0 is the same number of bytes of each language, 1 its natural share.
        language_sizes: what the natural shares are of, if not the bytes of the input.
        budget_bytes: text to train on; default all of it, at most 1 GiB (memory is about six times this).
        max_repeats: how often a small language's text may be used to fill its part.
        seed: decides which lines are taken.
        skip_malformed: pass over malformed lines and count them, instead of stopping at the first.
    """

    inputs: Sequence[Location | str]
    vocab_size: int
    keys: DocumentKeys = field(default_factory=DocumentKeys)
    alpha: float = 0.0
    budget_bytes: int | None = None
    max_repeats: float = 8.0
    seed: int = 0
    skip_malformed: bool = False
    language_sizes: Mapping[str, int] | None = None

    def check(self) -> None:
        """Refuse values outside their range.

        Raises:
            DataError: naming the option, or the value and its range.
        """
        self.keys.check()
        if self.vocab_size <= FIRST_BPE_ID:
            raise DataError(
                f"vocabulary size {self.vocab_size} leaves no room for text: ids 0 to {FIRST_BPE_ID - 1} are fixed\n"
                f"  choose more than {FIRST_BPE_ID} plus the number of different characters"
            )
        if self.vocab_size >= 2**31:
            raise DataError(f"vocabulary size {self.vocab_size} is too large: ids have 31 bits")
        if not -(2**63) <= self.seed < 2**63:
            raise DataError(f"--seed {self.seed} does not fit in 64 bits")
        if self.budget_bytes is not None and self.budget_bytes >= 2**63:
            raise DataError(f"bytes budget = {self.budget_bytes} does not fit in 64 bits")


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer on disk, and what it was trained on.

    ``refused_lines`` counts, by language, lines that SentencePiece's trainer passes over; their bytes count nowhere.
    """

    model: Path
    vocab_size: int
    samples: dict[str, LanguageSample]
    used_bytes: dict[str, int]
    malformed_lines: int
    refused_lines: dict[str, int] = field(default_factory=dict)

    def table(self) -> str:
        """Bytes available and used per language."""
        total = sum(self.used_bytes.values())
        rows = [
            (
                language,
                f"{sample.available_bytes:,}",
                f"{sample.repeats:.3f}",
                f"{self.used_bytes[language]:,}",
                f"{self.used_bytes[language] / max(total, 1):.3%}",
            )
            for language, sample in self.samples.items()
        ]
        available = sum(sample.available_bytes for sample in self.samples.values())
        return text_table(
            ("language", "bytes available", "times used", "bytes used", "share"),
            rows,
            ("all", f"{available:,}", "", f"{total:,}", "100.000%"),
        )


def train_tokenizer(job: TokenizerTraining, out: Path) -> TrainedTokenizer:
    """Train and write ``tokenizer.model``, ``tokenizer.vocab`` and ``training.json`` into ``out``.

    The input is read twice: once to count, once to sample. Each document is cut at its newlines, as in
    the published recipe. The same input, options and seed give the same model.

    Raises:
        DataError: bad input, ``out`` inside the input, a vocabulary that is too small for the fixed ids and characters
            of the text, or too large for the amount of text.
    """
    job.check()
    lines = _Lines(job, find_inputs(job.inputs, out=out))
    available = lines.count_bytes()
    all_bytes = sum(available.values())
    budget = min(all_bytes, DEFAULT_MAX_BUDGET_BYTES) if job.budget_bytes is None else job.budget_bytes
    samples = plan_sampling(
        available,
        alpha=job.alpha,
        budget_bytes=budget,
        max_repeats=job.max_repeats,
        language_sizes=_by_known_language(job.language_sizes),
    )
    used: Counter[str] = Counter()
    model = _train(job, lines.sample(samples, used))
    path = out / "tokenizer.model"
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = (
        f"{processor.id_to_piece(number)}\t{processor.get_score(number):g}\n"
        for number in range(len(processor))
    )
    atomic_write_bytes(out / "tokenizer.vocab", "".join(pieces).encode())
    atomic_write_bytes(path, model)
    trained = TrainedTokenizer(
        path,
        len(processor),
        samples,
        {language: used[language] for language in samples},
        lines.malformed,
        dict(sorted(lines.refused.items())),
    )
    atomic_write_bytes(out / "training.json", _record(job, trained))
    return trained


def _by_known_language(sizes: Mapping[str, int] | None) -> Mapping[str, int] | None:
    if sizes is None:
        return None
    by_language: Counter[str] = Counter()
    for name, size in sizes.items():
        by_language[known_language(name)] += size
    return by_language


class _Lines:
    """The lines of all documents, read as often as needed.

    ``malformed`` counts lines of the last reading; ``refused``, of :meth:`count_bytes`, by language those that
    SentencePiece passes over.
    """

    def __init__(self, job: TokenizerTraining, files: list[Location]) -> None:
        self.malformed = 0
        self.refused: Counter[str] = Counter()
        self._job, self._files = job, files

    def count_bytes(self) -> dict[str, int]:
        """Bytes by language that can be learnt from."""
        sizes: Counter[str] = Counter()
        self.refused.clear()
        for _, language, document in self._documents():
            if is_learnt_from(document.text):  # then all of its lines are
                sizes[language] += len(document.text) - document.text.count(b"\n")
                continue
            for line in document.text.split(b"\n"):
                if is_learnt_from(line):
                    sizes[language] += len(line)
                elif line:
                    self.refused[language] += 1
        return dict(sizes)

    def sample(self, samples: dict[str, LanguageSample], used: Counter[str]) -> Iterator[str]:
        """The lines to train on; ``used`` counts their bytes by language."""
        for file_number, language, document in self._documents():
            sample = samples.get(language)
            if sample is None:
                continue
            place = f"{file_number}:{document.line}:".encode()
            for number, line in enumerate(document.text.split(b"\n")):
                if not is_learnt_from(line):
                    continue
                copies = sample.copies(self._job.seed, place + b"%d" % number)
                used[language] += copies * len(line)
                yield from [line.decode()] * copies

    def _documents(self) -> Iterator[tuple[int, str, Document]]:
        """Each document with the number of its file and the language that its name for it means."""
        self.malformed = 0
        for file_number, path in enumerate(self._files):
            for entry in DocumentFile(path, self._job.keys):
                if isinstance(entry, Document):
                    yield file_number, known_language(entry.language), entry
                elif self._job.skip_malformed:
                    self.malformed += 1
                else:
                    raise DataError(
                        f"{path}:{entry.line}: {entry.reason}\n  mend the line, or pass over such lines with "
                        "--on-error skip"
                    )


def _train(job: TokenizerTraining, sentences: Iterator[str]) -> bytes:
    """The trained model; its record of options is made free of this machine's paths and threads."""
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    failure: list[BaseException] = []

    def guarded() -> Iterator[str]:
        try:
            yield from sentences
        except (Exception, KeyboardInterrupt) as error:
            failure.append(error)  # the trainer replaces an exception of its iterator by its own
            raise

    with tempfile.TemporaryDirectory() as directory:
        rules = Path(directory) / _RULES_NAME
        rules.write_bytes(nfc_rules_tsv())
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=guarded(),
                model_writer=written,
                num_threads=_TRAINING_THREADS,
                minloglevel=2,
                **trainer_options(job.vocab_size, rules),
            )
        except Exception as error:
            if failure:
                raise failure[0] from error
            raise _explained(job, error) from error
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(written.getvalue())
    model.normalizer_spec.normalization_rule_tsv = _RULES_NAME
    contents: bytes = model.SerializeToString(deterministic=True)
    return contents


def _explained(job: TokenizerTraining, error: Exception) -> DataError:
    message = str(error)
    if match := re.search(r"too high \(\d+\).*<= (\d+)", message):
        return DataError(
            f"vocabulary size {job.vocab_size}: the sampled text supports at most {match[1]}\n"
            "  choose a smaller vocabulary, or give more text"
        )
    if match := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"vocabulary size {job.vocab_size}: the fixed ids and the characters of the text alone need {match[1]}\n"
            "  choose a larger vocabulary"
        )
    if "sentences_.empty()" in message:
        return DataError("the sampled text is empty: give more text, or a larger --bytes-budget")
    return DataError(f"SentencePiece could not train this tokenizer: {message}")


def _record(job: TokenizerTraining, trained: TrainedTokenizer) -> bytes:
    options: dict[str, Any] = {key: value for key, value in asdict(job).items() if key != "inputs"}
    contents = {
        "format": FORMAT,
        "model_sha256": sha256_of_file(trained.model),
        "sentencepiece_version": sentencepiece.__version__,
        "unicode_version": unicodedata.unidata_version,
        "options": options,
        "recipe": trainer_options(job.vocab_size, Path(_RULES_NAME)),
        "inputs": [without_credentials(str(path)) for path in job.inputs],
        "malformed_lines": trained.malformed_lines,
        **({"refused_lines": trained.refused_lines} if trained.refused_lines else {}),
        "languages": {
            language: {
                "available_bytes": sample.available_bytes,
                "target_bytes": round(sample.target_bytes),
                "used_bytes": trained.used_bytes[language],
            }
            for language, sample in trained.samples.items()
        },
    }
    return (json.dumps(contents, indent=2, ensure_ascii=False) + "\n").encode()
