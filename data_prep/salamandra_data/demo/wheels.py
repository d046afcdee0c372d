"""Translations from Python packages: fetched with pip, read from the wheel in memory, never installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.checksums import sha256_of_file
from salamandra_data.demo.catalogue import CatalogueError, Message, read_mo, read_po
from salamandra_data.demo.documents import CorpusWriter, Document, clean, group
from salamandra_data.errors import DataError
from salamandra_data.languages import language_of_locale, language_of_text

_CATALOGUE = re.compile(r"(?P<stem>.*/locales?/(?P<locale>[^/]+)/LC_MESSAGES/[^/]+)\.(?P<kind>po|mo)$")


@dataclass(frozen=True)
class WheelSource:
    """A package whose wheel ships translations.

    Attributes:
        requirement: name and exact version.
        licence: SPDX identifier of the package, which covers its translations.
        required: whether the corpus is refused without it.
    """

    requirement: str
    licence: str
    required: bool = False

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]


WHEELS: tuple[WheelSource, ...] = (
    WheelSource("Django==5.2.19", "BSD-3-Clause", required=True),
    WheelSource("wagtail==8.0.1", "BSD-3-Clause", required=True),
    WheelSource("Sphinx==9.0.4", "BSD-2-Clause", required=True),
    WheelSource("django-oscar==4.2.1", "BSD-3-Clause"),
    WheelSource("django-allauth==65.21.1", "MIT"),
    WheelSource("django-cms==5.1.3", "BSD-3-Clause"),
    WheelSource("horizon==27.0.0", "Apache-2.0"),
)


def fetch_wheel(source: WheelSource, cache: Path) -> Path:
    """The wheel of ``source`` in ``cache``, downloaded with pip unless it is there. pip's configuration is honoured.

    Raises:
        DataError: pip is missing, or could not find or fetch the package; carries pip's own last words.
    """
    pattern = f"{re.sub('[-_.]+', '_', source.name)}-{source.version}-*.whl".lower()
    cache.mkdir(parents=True, exist_ok=True)
    if present := _find(cache, pattern):
        return present
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(cache), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _find(cache, pattern)
    if done.returncode != 0 or found is None:
        words = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()
        raise DataError(
            f"demo corpus: could not download {source.requirement}: {' '.join(words[-2:]).strip() or 'pip failed'}\n"
            f"  command: {' '.join(command)}\n"
            f"  remedy: connect to a package index (pip's own configuration is used), or put the wheel into {cache}"
        )
    return found


def _find(cache: Path, pattern: str) -> Path | None:
    return next(
        (path for path in sorted(cache.glob("*.whl")) if Path(path.name.lower()).match(pattern)), None
    )


def read_wheel(
    source: WheelSource, wheel: Path, writer: CorpusWriter, report: Callable[[str], None]
) -> dict[str, str]:
    """Add the translations of one wheel, and their English originals, to the corpus.

    Returns:
        The record for SOURCES.json: name, version, licence, file and its SHA-256.
    """
    english: list[str] = []
    originals: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for name, language, messages in _catalogues(archive, report):
            strings: dict[str, list[str]] = {}
            for message in messages:
                fresh = [raw for raw in message.originals if raw not in originals]
                originals.update(fresh)
                english += [text for raw in fresh if writer.is_new("en", text := clean(raw))]
                for raw in message.translations if language != "en" else ():
                    text = "" if raw in message.originals else clean(raw)
                    actual = language_of_text(language, text)
                    if text and writer.is_new(actual, text):
                        strings.setdefault(actual, []).append(text)
            for language, texts in strings.items():
                _add(writer, source, language, texts, name)
    _add(writer, source, "en", english, "originals")
    return {
        "name": source.name,
        "version": source.version,
        "licence": source.licence,
        "file": wheel.name,
        "sha256": sha256_of_file(wheel),
    }


def _add(writer: CorpusWriter, source: WheelSource, language: str, texts: list[str], name: str) -> None:
    for number, text in enumerate(group(text for text in texts if text)):
        identity = f"{source.name.lower()}/{name}#{number}"
        writer.add(Document(text, language, source.requirement, source.licence, identity))


def _catalogues(
    archive: zipfile.ZipFile, report: Callable[[str], None]
) -> Iterator[tuple[str, str, list[Message]]]:
    """(name, language, messages) of each catalogue in a language of the corpus.

    The ``.mo`` is used where there is no ``.po`` beside it.
    """
    found: dict[str, dict[str, str]] = {}
    for name in archive.namelist():
        if (match := _CATALOGUE.match(name)) and (language := language_of_locale(match["locale"])):
            found.setdefault(match["stem"], {"language": language})[match["kind"]] = name
    for stem, kinds in sorted(found.items()):
        name = kinds.get("po") or kinds["mo"]
        try:
            messages = list((read_po if "po" in kinds else read_mo)(archive.read(name)))
        except CatalogueError as error:
            report(f"left out {name}: {error}")
            continue
        yield stem, kinds["language"], messages
