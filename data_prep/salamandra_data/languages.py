"""From the locale names that software uses to the language codes of the Salamandra corpus."""

from __future__ import annotations

import re
from functools import lru_cache

_CODES = (
    "bg ca cs cy da de el en es et eu fi fr ga gl hr hu it lt lv mt nl nn no oc pl pt ro ru sh sk sl sr sv uk"
)
LANGUAGES: tuple[str, ...] = tuple(_CODES.split())
"""The 35 natural languages. Program text is the 36th source, ``code``."""

CODE = "code"

NOT_PROSE = frozenset({CODE})
"""Languages that are not judged as prose: no language identification, score or paragraph deduplication."""

_SAME_LANGUAGE = {"nb": "no"}
_THREE_LETTERS = (
    "bul:bg cat:ca ces:cs cze:cs cym:cy wel:cy dan:da deu:de ger:de ell:el gre:el eng:en spa:es est:et ekk:et eus:eu "
    "baq:eu fin:fi fra:fr fre:fr gle:ga glg:gl hrv:hr hun:hu ita:it lit:lt lav:lv lvs:lv mlt:mt nld:nl dut:nl nno:nn "
    "nor:no nob:no oci:oc pol:pl por:pt ron:ro rum:ro rus:ru hbs:sh slk:sk slo:sk slv:sl srp:sr swe:sv ukr:uk"
)
_ISO_639_3 = dict(pair.split(":") for pair in _THREE_LETTERS.split())
"""Codes of ISO 639-3, and of 639-2 where those differ: what FLORES, FineWeb-2 and HPLT put before a script."""
_SERBIAN = ("sr", "sh")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_LETTER = re.compile(r"[^\W\d_]")


def language_of_locale(locale: str) -> str | None:
    """The corpus language of a locale such as ``pt_BR``, ``nb-NO``, ``ca@valencia`` or ``sr_Latn``.

    Returns:
        One of :data:`LANGUAGES`, or None for a language that is not in the corpus. Serbian in Latin script is
        ``sh`` (Serbo-Croatian), as in the published data table.
    """
    name, _, modifier = locale.replace("-", "_").partition("@")
    parts = name.lower().split("_")
    language = _SAME_LANGUAGE.get(parts[0], parts[0])
    if language == "sr" and ("latn" in parts[1:] or modifier.lower() in ("latin", "latn")):
        return "sh"
    return language if language in LANGUAGES else None


@lru_cache(maxsize=1024)
def corpus_language(name: str) -> str | None:
    """The corpus language that a data set's name for it means.

    Args:
        name: a locale as :func:`language_of_locale` takes it, ``code``, or a code of ISO 639-3, with a script or not:
            ``cat_Latn``, ``srp_Cyrl``, ``CA`` or ``en-US``.
    Returns:
        One of :data:`LANGUAGES` or :data:`CODE`, or None for a language that is not in the corpus. Serbo-Croatian
        labelled as Cyrillic is ``sr``.
    """
    if name.lower() == CODE:
        return CODE
    first, _, rest = name.replace("-", "_").partition("_")
    first = _ISO_639_3.get(first.lower(), first)
    language = language_of_locale(f"{first}_{rest}" if rest else first)
    return "sr" if language == "sh" and "cyrl" in rest.lower().split("_") else language


@lru_cache(maxsize=1024)
def known_language(name: str) -> str:
    """The corpus language that a name means, or the name as it is for a language that is not in the corpus."""
    return corpus_language(name) or name


def language_of_text(language: str, text: str) -> str:
    """``language``, corrected by script where a catalogue's name is not enough.

    Several projects keep Serbian in Latin script under plain ``sr``; the letters decide.
    """
    if language not in _SERBIAN:
        return language
    letters = len(_LETTER.findall(text))
    return "sr" if 2 * len(_CYRILLIC.findall(text)) > letters else "sh"
