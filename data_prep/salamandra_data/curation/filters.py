"""datatrove filters: each looks at one document, and says why it is removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from salamandra_data.curation.contamination import NgramIndex
from salamandra_data.curation.document_score import document_score
from salamandra_data.curation.harm_score import HarmScore
from salamandra_data.curation.language_models import UNKNOWN, LanguageOpinions
from salamandra_data.curation.personal_data import mask
from salamandra_data.curation.removals import Removals
from salamandra_data.curation.settings import NOT_PROSE
from salamandra_data.languages import CODE

SCORE_BINS = 20


class LanguageFilter(BaseFilter):
    """Keeps documents that are in the language they declare."""

    name = "language"

    def filter(self, doc: Document) -> bool:
        """As datatrove's filters."""
        language = doc.metadata["language"]
        if language in NOT_PROSE:
            return True
        opinions = LanguageOpinions(doc.text)
        if opinions.allow(language):
            return True
        doc.metadata["detail"] = str(opinions)
        return False


class LanguageIdentifier(BaseFilter):
    """Gives each document the language it is in, and keeps those of which that can be said."""

    name = "language identifier"

    def filter(self, doc: Document) -> bool:
        """As datatrove's filters."""
        if doc.metadata["language"] in NOT_PROSE:
            return True
        opinions = LanguageOpinions(doc.text)
        language = opinions.language(doc.metadata["language"])
        if language == UNKNOWN:
            doc.metadata["detail"] = str(opinions)
            return False
        doc.metadata["language"] = language
        return True


class ScoreFilter(BaseFilter):
    """Keeps prose of at least ``least`` quality; counts scores by language in ``histogram``."""

    name = "quality score"

    def __init__(self, removals: Removals, least: float, histogram: dict[str, list[int]]) -> None:
        super().__init__(removals)
        self._least, self._histogram = least, histogram

    def filter(self, doc: Document) -> bool:
        """As datatrove's filters."""
        language = doc.metadata["language"]
        if language in NOT_PROSE:
            return True
        score = document_score(doc.text)
        bins = self._histogram.setdefault(language, [0] * SCORE_BINS)
        bins[min(int(score * SCORE_BINS), SCORE_BINS - 1)] += 1
        doc.metadata["quality_score"] = score
        doc.metadata["detail"] = f"score {score:.3f}"
        return score >= self._least


class HarmFilter(BaseFilter):
    """Keeps documents that a score of the user's own finds harmless enough."""

    name = "harm score"

    def __init__(self, removals: Removals, harm: HarmScore) -> None:
        super().__init__(removals)
        self._score, self._most = harm.scorer(), harm.most

    def filter(self, doc: Document) -> bool:
        """As datatrove's filters."""
        score = self._score(doc.id, doc.text, doc.metadata["language"])
        doc.metadata["detail"] = f"harm {score:.3f}"
        return score <= self._most


class ContaminationFilter(BaseFilter):
    """Keeps documents that share no n-gram with a benchmark."""

    name = "contamination"

    def __init__(self, removals: Removals, index: NgramIndex) -> None:
        super().__init__(removals)
        self._index = index

    def filter(self, doc: Document) -> bool:
        """As datatrove's filters."""
        found = self._index.first_in(doc.text)
        doc.metadata["detail"] = found or ""
        return found is None


class PersonalDataMask(PipelineStep):
    """Masks personal data, and counts by language and kind in ``found``."""

    type = "FORMAT"
    name = "personal data"

    def __init__(self, found: dict[str, Counter[str]]) -> None:
        super().__init__()
        self._found = found

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """As datatrove's steps."""
        for document in data:
            language = document.metadata["language"]
            document.text, counts = mask(document.text, code=language == CODE)
            if counts:
                self._found.setdefault(language, Counter()).update(counts)
            yield document
