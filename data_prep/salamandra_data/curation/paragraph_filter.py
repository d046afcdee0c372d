"""Taking repeated paragraphs out of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup.sentence_dedup import SentenceDedupFilter

from salamandra_data.curation.duplicate_signatures import WORD, AnyLanguageWords, paragraph_config
from salamandra_data.curation.removals import Removals, Tally

_TOO_LITTLE = "too_little"


class ParagraphFilter(SentenceDedupFilter):
    """Takes repeated paragraphs out, and counts them by language in ``repeated``."""

    def __init__(self, folder: Path, min_words: int, removals: Removals, repeated: dict[str, Tally]) -> None:
        super().__init__(str(folder), paragraph_config(), _WholeDocuments(removals), AnyLanguageWords())
        self._min_words, self._repeated = min_words, repeated

    def remove_dup_sentences(self, doc: Document, du_lines: Any) -> tuple[str, str]:
        """What is left of a document without some of its lines, and what it was."""
        kept, _ = super().remove_dup_sentences(doc, du_lines)
        words = len(WORD.findall(kept))
        if words < self._min_words:
            doc.metadata[_TOO_LITTLE] = True
            doc.metadata["detail"] = f"{len(du_lines)} repeated, {words} words left"
            return "", doc.text  # nothing left is datatrove's sign for a document to remove
        lost = len(doc.text.encode()) - len(kept.encode())
        self._repeated.setdefault(doc.metadata["language"], Tally()).add(len(du_lines), lost)
        return kept, doc.text


class _WholeDocuments:
    """datatrove also writes documents that lost a paragraph; of these, counts those that went as a whole."""

    def __init__(self, removals: Removals) -> None:
        self._removals = removals

    def __enter__(self) -> _WholeDocuments:
        return self

    def __exit__(self, *ended_with: object) -> None:
        return None

    def write(self, document: Document, rank: int = 0) -> None:
        if document.metadata.get(_TOO_LITTLE):
            self._removals.write(document, rank)
