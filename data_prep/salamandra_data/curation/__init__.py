"""Curation: which documents of a corpus are worth training on, and what of them may be kept.

Every input file goes, as a task of its own, through datatrove's filters (language, contamination, quality, harm), the
masking of personal data, and three deduplications (exact, near, paragraphs). What is removed is counted by reason and
language, and a sample of it is kept; the documents read are those written and those removed, which is checked.
"""

from __future__ import annotations

from salamandra_data.curation.curate import CurationResult, curate
from salamandra_data.curation.harm_score import HarmScore
from salamandra_data.curation.settings import CurationSettings

__all__ = ["CurationResult", "CurationSettings", "HarmScore", "curate"]
