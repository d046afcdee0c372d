"""From the locale names that software uses to the language codes of the Salamandra corpus."""

from __future__ import annotations

import re

_CODES = (
    "bg ca cs cy da de el en es et eu fi fr ga gl hr hu it lt lv mt nl nn no oc pl pt ro ru sh sk sl sr sv uk"
)
LANGUAGES: tuple[str, ...] = tuple(_CODES.split())
"""The 35 natural languages. Program text is the 36th source, ``code``."""

CODE = "code"

_SAME_LANGUAGE = {"nb": "no"}
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


def language_of_text(language: str, text: str) -> str:
    """``language``, corrected by script where a catalogue's name is not enough.

    Several projects keep Serbian in Latin script under plain ``sr``; the letters decide.
    """
    if language not in _SERBIAN:
        return language
    letters = len(_LETTER.findall(text))
    return "sr" if 2 * len(_CYRILLIC.findall(text)) > letters else "sh"
