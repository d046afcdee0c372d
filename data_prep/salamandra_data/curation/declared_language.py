"""What a document says about its own language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salamandra_data.curation.language_models import UNKNOWN
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.languages import CODE, LANGUAGES, corpus_language
from salamandra_data.readers import Document, DocumentKeys, Malformed


@dataclass(frozen=True)
class OptionalLanguage(DocumentKeys):
    """Keys of records that need not name their language: those that do not are in :data:`UNKNOWN`."""

    def document(self, line: int, values: Any) -> Document | Malformed:
        """As its base class does."""
        if self.language is None and isinstance(values, Mapping) and values.get(self.language_key) is None:
            values = {**values, self.language_key: UNKNOWN}
        return super().document(line, values)


def keys_of(settings: CurationSettings) -> DocumentKeys:
    """The keys of a run's records, of which the language may be missing where it is looked for anyway."""
    keys = settings.keys
    return OptionalLanguage(**vars(keys)) if settings.identify_language else keys


def declared_language(name: str, settings: CurationSettings) -> str | None:
    """The corpus language that a name such as ``nb``, ``ca_ES``, ``sr-Latn`` or ``cat_Latn`` means.

    Returns:
        One of :data:`LANGUAGES` or ``code``. For others: :data:`UNKNOWN` where languages are identified anyway, the
        name as it is where they are not looked at, and None where they are to be checked, which cannot be done.
    """
    language = corpus_language(name)
    if language is None and settings.identify_language:
        return UNKNOWN
    return name if language is None and not settings.check_language else language


def unknown_language(name: str) -> str:
    """Why a document in a language of this name cannot be checked, and what would help."""
    return (
        f"its language {name!r} cannot be checked: it is none of {', '.join(LANGUAGES)} and {CODE}, nor a locale or "
        "ISO 639 code of these; --identify-language looks for it, --no-check-language keeps it"
    )
