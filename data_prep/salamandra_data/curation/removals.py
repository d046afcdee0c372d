"""Counting what is removed, and keeping a sample of it."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from salamandra_data.curation.personal_data import mask
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
    counts: dict[str, Tally] = field(default_factory=dict)
    kept: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Removals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def write(self, document: Any, rank: int = 0) -> None:
        """Count one of datatrove's documents."""
        metadata = document.metadata
        size = len(document.text.encode())
        self.counts.setdefault(metadata["language"], Tally()).add(1, size)
        shown = {
            "id": document.id,
            "language": metadata["language"],
            "text": document.text[:_MASKED_CHARACTERS],
        }
        self.kept.append((self._place(document.id), {**shown, "detail": metadata.get("detail", "")}))
        if len(self.kept) > 2 * self.samples + 100:
            self._shrink()

    def merge(self, others: Iterable[Removals]) -> None:
        """Add what the same step removed elsewhere."""
        for other in others:
            for language, tally in other.counts.items():
                self.counts.setdefault(language, Tally()).add(tally.documents, tally.utf8_bytes)
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
