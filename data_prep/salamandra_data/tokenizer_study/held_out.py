"""Documents to train tokenizers on, and others to measure them on, with no line in common."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_file
from salamandra_data.errors import DataError
from salamandra_data.readers import Document
from salamandra_data.tokenization import is_validation
from salamandra_data.tokenizer_study.study_documents import StudyDocuments


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
