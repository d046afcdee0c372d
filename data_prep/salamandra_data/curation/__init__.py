"""Curation: which documents of a corpus are worth training on, and what of them may be kept.

Every input file goes, as a task of its own, through filters (language, contamination, quality, harm, and the user's),
the masking of personal data, and three deduplications (exact, near, paragraphs). What is removed is counted by reason
and language, and a sample of it is kept; the documents read are those written and those removed, which is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from salamandra_data.curation.curation_filter import CurationFilter, NoOptions, Section
from salamandra_data.curation.settings import CurateOptions, CurationSettings

if TYPE_CHECKING:
    from salamandra_data.curation.command import CurationResult, curate

__all__ = [
    "CurateOptions",
    "CurationFilter",
    "CurationResult",
    "CurationSettings",
    "NoOptions",
    "Section",
    "curate",
]


def __getattr__(name: str) -> Any:
    """What needs the packages of the extra ``data``, when it is asked for."""
    if name not in ("CurationResult", "curate"):
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module("salamandra_data.curation.command"), name)
