"""What a task of a run counts: documents by language, those removed by reason with a sample of them, and findings."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.curation.personal_data import mask
from salamandra_data.errors import DataError
from salamandra_data.languages import CODE

UNREADABLE = "?"
"""In place of a language, for lines that could not be read."""

_SAMPLE_CHARACTERS = 2000
_MASKED_CHARACTERS = _SAMPLE_CHARACTERS + 200  # so that what stands across the end is known for what it is


@dataclass
class Tally:
    """Documents and bytes of text."""

    documents: int = 0
    utf8_bytes: int = 0

    def add(self, documents: int, utf8_bytes: int) -> None:
        """Count more of them."""
        self.documents += documents
        self.utf8_bytes += utf8_bytes


Tallies = dict[str, Tally]
"""By language."""


def add_tallies(total: Tallies, part: Mapping[str, Tally]) -> None:
    """Count in ``total`` what was counted in ``part``."""
    for language, tally in part.items():
        total.setdefault(language, Tally()).add(tally.documents, tally.utf8_bytes)


def sum_of(tallies: Mapping[str, Tally]) -> Tally:
    """All languages together."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally.documents, tally.utf8_bytes)
    return total


@dataclass
class Removals:
    """What one step removed; stands where datatrove's filters expect a writer of excluded documents.

    The sample is of the documents whose hash is smallest, so it is the same whatever tasks they came through, and
    samples of parts make a sample of the whole.

    Attributes:
        reason: why.
        samples: how many documents are kept.
        seed: which ones.
        counts: by language.
        kept: the sample: hash, and what is shown.
    """

    reason: str
    samples: int
    seed: int
    counts: Tallies = field(default_factory=dict)
    kept: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Removals:
        return self

    def __exit__(self, *ended_with: object) -> None:
        return None

    def write(self, document: Any, rank: int = 0) -> None:
        """Count one of datatrove's documents."""
        metadata = document.metadata
        size = len(document.text.encode(errors="replace"))
        self.counts.setdefault(metadata["language"], Tally()).add(1, size)
        shown = {
            "id": document.id,
            "language": metadata["language"],
            "text": _unicode(document.text[:_MASKED_CHARACTERS]),
            "detail": _unicode(metadata.get("detail", "")),
        }
        self.kept.append((self._place(document.id), shown))
        if len(self.kept) > 2 * self.samples + 100:
            self._shrink()

    def merge(self, others: Iterable[Removals]) -> None:
        """Add what the same step removed elsewhere."""
        for other in others:
            add_tallies(self.counts, other.counts)
            self.kept += other.kept
            self._shrink()

    def _shrink(self) -> None:
        self.kept = heapq.nsmallest(self.samples, self.kept, key=lambda entry: (entry[0], entry[1]["id"]))

    def mask(self) -> None:
        """Mask personal data in the sample, which may have been removed before the text was."""
        self._shrink()
        for _, shown in self.kept:
            code = shown["language"] == CODE
            for key in ("text", "detail"):
                shown[key] = mask(shown[key], code=code)[0]

    def sample(self) -> list[dict[str, Any]]:
        """The documents kept, in an order that says nothing."""
        self._shrink()
        return [{**shown, "text": shown["text"][:_SAMPLE_CHARACTERS]} for _, shown in self.kept]

    def _place(self, identity: str) -> int:
        digest = hashlib.blake2b(f"{self.seed} {self.reason} {identity}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")


def _unicode(text: str) -> str:
    """Text that can be written: a filter of the user's own may leave half a character."""
    return text.encode(errors="replace").decode()


@dataclass
class FileCount:
    """What one task found out.

    Attributes:
        read: by language as declared; ``written`` by language as identified.
        removals: by reason.
        findings: by filter, as JSON.
        repeated: paragraphs taken out of documents that stay, by language.
    """

    read: Tallies = field(default_factory=dict)
    written: Tallies = field(default_factory=dict)
    removals: dict[str, Removals] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)
    repeated: Tallies = field(default_factory=dict)

    @classmethod
    def of_reasons(cls, reasons: Sequence[str], samples: int, seed: int) -> FileCount:
        """Nothing found out yet."""
        return cls(removals={reason: Removals(reason, samples, seed) for reason in reasons})

    def write(self, path: Path) -> None:
        """Leave it in a file, as JSON.

        Raises:
            DataError: what a filter found is no JSON.
        """
        for name, found in self.findings.items():
            try:
                orjson.dumps(found)
            except TypeError as error:
                raise DataError(f"filter {name}: what it found is no JSON: {error}") from error
        atomic_write_bytes(path, orjson.dumps(self))

    @classmethod
    def read_from(cls, path: Path) -> FileCount:
        """What :meth:`write` left.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            values = orjson.loads(path.read_bytes())
            removals = {
                reason: Removals(
                    **{
                        **entry,
                        "counts": _tallies(entry["counts"]),
                        "kept": [(place, shown) for place, shown in entry["kept"]],
                    }
                )
                for reason, entry in values["removals"].items()
            }
            return cls(
                read=_tallies(values["read"]),
                written=_tallies(values["written"]),
                removals=removals,
                findings=values["findings"],
                repeated=_tallies(values["repeated"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: cannot be read: {error}\n  it is this run's own and damaged: remove --out, run again"
            ) from error


def _tallies(values: Mapping[str, Mapping[str, int]]) -> Tallies:
    return {language: Tally(**tally) for language, tally in values.items()}
