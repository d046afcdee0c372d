"""How many documents are of which source, or of which licence."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

MOST_LISTED = 1000
"""Names in one manifest: more of them, such as the pages of the web, nobody reads."""


class LabelCounts:
    """Documents by name, of which the largest are listed."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unlisted = 0

    def add(self, counts: Mapping[str, int], unlisted: int = 0) -> None:
        """Count more documents, ``unlisted`` of them of names that are not known any more."""
        self._counts.update(counts)
        self._unlisted += unlisted

    def listed(self) -> tuple[dict[str, int], int]:
        """The :data:`MOST_LISTED` largest, in the order of their names, and the documents of all others."""
        largest = heapq.nsmallest(MOST_LISTED, self._counts.items(), key=lambda entry: (-entry[1], entry[0]))
        unlisted = self._counts.total() - sum(count for _, count in largest) + self._unlisted
        return dict(sorted(largest)), unlisted
