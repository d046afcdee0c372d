"""Text from Debian packages: fetched with ``apt-get download``, read with ``dpkg-deb``, never installed, no root."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.checksums import sha256_of_file
from salamandra_data.demo.debian_text import extract, rule_for
from salamandra_data.demo.documents import CorpusWriter, Document, clean, group, packages_in_turn
from salamandra_data.errors import DataError
from salamandra_data.languages import language_of_text

_HELP = "en-us ca cs da de el es et eu fi fr gl hu it nl pl pt pt-br ru sl sv"
_MESSAGES = (
    "bg ca cs cy da de el es et eu fi fr ga gl hr hu it lt lv nb nl nn oc pl pt pt-br ro ru sk sl sr sv uk"
)
_MANUALS = "cs da de el es fi fr hu it nb nl pl pt pt-br ro ru sr sv uk"
_LARGEST_FILE_BYTES = 20_000_000


@dataclass(frozen=True)
class DebianSource:
    """A package with text, and the licence of that text (from the package's ``copyright``)."""

    package: str
    licence: str


DEBIAN_PACKAGES: tuple[DebianSource, ...] = (
    DebianSource("mediawiki", "GPL-2.0-or-later"),
    DebianSource("gnome-user-docs", "CC-BY-SA-3.0"),
    DebianSource("debian-handbook", "GPL-2.0-or-later OR CC-BY-SA-3.0"),
    *(DebianSource(f"libreoffice-help-{name}", "MPL-2.0") for name in _HELP.split()),
    *(DebianSource(f"libreoffice-l10n-{name}", "MPL-2.0") for name in _MESSAGES.split()),
    DebianSource("manpages", "GPL-3.0-or-later AND LicenseRef-per-page"),
    *(
        DebianSource(f"manpages-{name}", "GPL-3.0-or-later AND LicenseRef-per-page")
        for name in _MANUALS.split()
    ),
)
"""English comes first within each group, so that untranslated passages of the others are recognised and left out."""


def add_debian_packages(
    writer: CorpusWriter,
    cache: Path,
    report: Callable[[str], None],
    packages: Sequence[DebianSource] = DEBIAN_PACKAGES,
) -> list[dict[str, str]]:
    """Download the packages and add their text to the corpus.

    Packages that the release at hand does not have are reported and left out.

    Returns:
        Records for SOURCES.json: name, version, licence, file and its SHA-256.

    Raises:
        DataError: ``apt-get`` or ``dpkg-deb`` is missing, or no package could be fetched.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(
                f"demo corpus: {tool} is not here\n  remedy: use a Debian system, or the pip source"
            )
    cache.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, str]] = []
    apt = _AptGet(cache, report)
    for source in packages_in_turn(packages, lambda one: f"{one.package} ({one.licence})", writer, report):
        file = apt.download(source.package)
        if file is None:
            report(f"left out: {source.package}: {apt.last_words}")
            continue
        version = file.name.split("_")[1].replace("%3a", ":")
        _add_package(writer, source, file)
        record = {"name": source.package, "version": version, "licence": source.licence, "file": file.name}
        records.append({**record, "sha256": sha256_of_file(file)})
    if not records:
        raise DataError(
            f"demo corpus: apt-get could fetch no package: {apt.last_words}\n"
            "  remedy: connect to a Debian mirror and see that `apt-get download mediawiki` works"
        )
    return records


class _AptGet:
    """``apt-get`` for an ordinary user: with the system's package lists, else with private ones in the cache."""

    def __init__(self, cache: Path, report: Callable[[str], None]) -> None:
        self._cache = cache
        self._report = report
        self._options: list[str] = []
        self.last_words = ""

    def download(self, package: str) -> Path | None:
        """The ``.deb`` in the cache, or None with :attr:`last_words` set."""
        if present := self._find(package):
            return present
        if not self._run("download", package) and not self._options:
            self._use_private_lists()
            self._run("download", package)
        return self._find(package)

    def _find(self, package: str) -> Path | None:
        return next(iter(sorted(self._cache.glob(f"{package}_*.deb"))), None)

    def _use_private_lists(self) -> None:
        state = (self._cache / "apt").resolve()
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        settings = {"Dir::State::lists": state / "lists", "Dir::Cache": state}
        self._options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        self._report("fetching package lists into the cache")
        self._run("update")

    def _run(self, *arguments: str) -> bool:
        command = ["apt-get", "-qq", *self._options, *arguments]
        done = subprocess.run(command, cwd=self._cache, capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        self.last_words = lines[-1] if lines else ""
        return done.returncode == 0


def _add_package(writer: CorpusWriter, source: DebianSource, file: Path) -> None:
    found = [
        (path, rule[0], extract(rule[1], data)) for path, data in _files(file) if (rule := rule_for(path))
    ]
    found.sort(key=lambda item: item[1] != "en")
    for path, language, strings in found:
        texts: dict[str, list[str]] = {}
        for raw in strings:
            text = clean(raw)
            actual = language_of_text(language, text)
            if text and (actual == "en" or not writer.has("en", text)) and writer.is_new(actual, text):
                texts.setdefault(actual, []).append(text)
        for actual, kept in texts.items():
            for number, text in enumerate(group(kept)):
                identity = f"debian/{source.package}/{path}#{number}"
                writer.add(
                    Document(text, actual, f"Debian package {source.package}", source.licence, identity)
                )


def _files(package: Path) -> Iterator[tuple[str, bytes]]:
    """(path, contents) of the regular files of a package that hold text of use."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = member.name.removeprefix("./")
            wanted = member.isreg() and member.size <= _LARGEST_FILE_BYTES and rule_for(path)
            if wanted and (stream := archive.extractfile(member)):
                yield path, stream.read()
    if process.returncode != 0:
        raise DataError(
            f"{package}: dpkg-deb failed with {process.returncode}\n  remedy: delete the file, run again"
        )
