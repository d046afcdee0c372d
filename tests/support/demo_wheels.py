"""A fixture that writes wheels with translations, as the quick start downloads them."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from salamandra_data.demo.wheels import WHEELS
from salamandra_data.languages import LANGUAGES

CYRILLIC = "абвгдежзийклмнопрстуфхцчшщ"
GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
LATIN = "abcdefghijklmnopqrstuvwxyz"


def sentence(language: str, generator: random.Random) -> str:
    """Words of random letters, different in each language."""
    letters = CYRILLIC if language in ("bg", "ru", "sr", "uk") else GREEK if language == "el" else LATIN
    words = (
        "".join(generator.choices(letters, k=generator.randint(2, 9)))
        for _ in range(generator.randint(4, 12))
    )
    return " ".join(words).capitalize() + "."


def po_file(language: str, messages: int, generator: random.Random) -> str:
    """A catalogue with as many messages."""
    entries = (
        f'msgid "English text {number} {sentence("en", generator)}"\nmsgstr "{sentence(language, generator)}"\n'
        for number in range(messages)
    )
    return "\n".join(entries)


def write_wheels(directory: Path, messages: int = 12) -> None:
    """Put a stand-in for each package into ``directory``, under the name that pip would give it."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in WHEELS:
        generator = random.Random(source.name)
        name = source.name.replace("-", "_").lower()
        with zipfile.ZipFile(directory / f"{name}-{source.version}-py3-none-any.whl", "w") as wheel:
            for language in LANGUAGES:
                locale = {"no": "nb", "sh": "sr_Latn"}.get(language, language)
                wheel.writestr(
                    f"{name}/locale/{locale}/LC_MESSAGES/django.po", po_file(language, messages, generator)
                )


@pytest.fixture
def write_demo_wheels() -> Callable[..., None]:
    """:func:`write_wheels`, for tests."""
    return write_wheels
