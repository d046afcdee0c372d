"""What a document says about its own language."""

from __future__ import annotations

from salamandra_data.curation.language_models import UNKNOWN
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.languages import CODE, LANGUAGES, language_of_locale


def declared_language(name: str, settings: CurationSettings) -> str | None:
    """The corpus language that a name or locale such as ``nb``, ``ca_ES`` or ``sr-Latn`` means.

    Returns:
        One of :data:`LANGUAGES` or ``code``. For others: :data:`UNKNOWN` where languages are identified anyway, the
        name as it is where they are not looked at, and None where they are to be checked, which cannot be done.
    """
    language = CODE if name.lower() == CODE else language_of_locale(name)
    if language is None and settings.identify_language:
        return UNKNOWN
    return name if language is None and not settings.check_language else language


def unknown_language(name: str) -> str:
    """Why a document in a language of this name cannot be checked, and what would help."""
    return (
        f"its language {name!r} cannot be checked: it is none of {', '.join(LANGUAGES)} and {CODE}, nor a locale of "
        "these; --identify-language looks for it, --no-check-language keeps it"
    )
