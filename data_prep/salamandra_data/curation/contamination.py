"""Removing documents that share words in a row with a benchmark, whatever file its tasks come in."""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.curation.curation_filter import CurationFilter, Section
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.option_groups import Place
from salamandra_data.readers import (
    ENDINGS,
    CountedStream,
    Document,
    DocumentFile,
    DocumentKeys,
    Malformed,
    decompressed,
    find_inputs,
    format_of,
)
from salamandra_data.storage import Location, as_location

if TYPE_CHECKING:
    import datatrove.data

_WORD = re.compile(r"\w+")
_BLANK_LINES = re.compile(r"\n\s*\n")
_OPTION = "--decontaminate"


class ContaminationOptions(Options):
    """Which benchmarks documents must not hold."""

    decontaminate: Annotated[
        tuple[Place, ...],
        Option(
            "benchmark tasks: files, or directories of files (.jsonl, .json, .txt, each also .gz or .zst; .parquet, "
            ".arrow: all strings of an item); documents that share --ngram words in a row with an item go",
            metavar="FILE",
            decides_output=False,
        ),
    ] = ()
    ngram: Annotated[int, Field(ge=2), Option("words in a row")] = 13


class ContaminationFilter(CurationFilter):
    """Keeps documents that share no n-gram with a benchmark."""

    name: ClassVar[str] = "contaminated"
    explanation: ClassVar[str] = "words in a row that are in a benchmark"
    Options = ContaminationOptions
    report_key: ClassVar[str | None] = "task_files"
    nothing_found: ClassVar[Any] = []

    def __init__(self, options: ContaminationOptions) -> None:
        super().__init__(options)
        self._index = NgramIndex(options.decontaminate, options.ngram)

    @classmethod
    def is_wanted(cls, options: ContaminationOptions) -> bool:
        """Whether there are benchmarks."""
        return bool(options.decontaminate)

    def examine(self, document: datatrove.data.Document) -> str | None:
        """Why a document is removed: the first words that it shares with a benchmark."""
        return self._index.first_in(document.text)

    def findings(self) -> list[dict[str, Any]]:
        """What is looked for, the same for every file."""
        return [asdict(tasks) for tasks in self._index.files]

    @classmethod
    def merged(cls, one: Any, other: Any) -> Any:
        """Either of two findings, which are equal."""
        return one

    @classmethod
    def sections(cls, findings: Any, settings: Mapping[str, Any]) -> Sequence[Section]:
        """What was looked for of each file."""
        if not findings:
            return ()
        rows = [
            (tasks["path"], *(f"{tasks[key]:,}" for key in ("items", "too_short", "ngrams")))
            for tasks in findings
        ]
        heading = ("file", "items", f"too short, under {settings['ngram']} words", "different n-grams")
        return [Section("Benchmarks looked for", tables=[(heading, rows)])]


@dataclass(frozen=True)
class TaskFile:
    """What of a file of tasks is looked for.

    Attributes:
        path: of the file.
        items: how many it has.
        too_short: items of fewer words than an n-gram, which are not looked for.
        ngrams: different ones.
    """

    path: str
    items: int
    too_short: int
    ngrams: int


class NgramIndex:
    """The n-grams of some task files, as words without case and punctuation, and in Unicode's composed form.

    Args:
        places: files as :func:`task_items` takes them, or directories of such.
        words: of an n-gram.
    Raises:
        DataError: a file cannot be read, or none of its items has as many words.
    """

    def __init__(self, places: Sequence[Location | str], words: int) -> None:
        from xxhash import xxh3_64_intdigest

        self._hash = xxh3_64_intdigest
        self._words = words
        self._found: set[int] = set()
        self._starts: set[str] = set()
        self.files = [self._add(path) for path in task_files(places)]

    def __len__(self) -> int:
        """How many different n-grams."""
        return len(self._found)

    def first_in(self, text: str) -> str | None:
        """The first n-gram of a text that is in a task, as lower-case words; None if there is none."""
        tokens = _tokens(text)
        for start in range(len(tokens) - self._words + 1):
            # Most words start no task's n-gram, which saves hashing what follows them.
            if tokens[start] in self._starts:
                ngram = tokens[start : start + self._words]
                if self._hashed(ngram) in self._found:
                    return " ".join(ngram)
        return None

    def _add(self, path: Location) -> TaskFile:
        items = too_short = longest = 0
        found: set[int] = set()
        for text in task_items(path):
            tokens = _tokens(text)
            items += 1
            too_short += len(tokens) < self._words
            longest = max(longest, len(tokens))
            for start in range(len(tokens) - self._words + 1):
                found.add(self._hashed(tokens[start : start + self._words]))
                self._starts.add(tokens[start])
        if not found:
            raise DataError(
                f"{_OPTION} {path}: none of its {items:,} items has {self._words} words, so nothing would be "
                f"looked for\n  its longest has {longest}: take a smaller --ngram, or leave the file out"
            )
        self._found |= found
        return TaskFile(str(path), items, too_short, len(found))

    def _hashed(self, tokens: list[str]) -> int:
        return self._hash(" ".join(tokens).encode(errors="surrogatepass"))


def _tokens(text: str) -> list[str]:
    # Marks that are apart from their letter are no part of a word to `re`, so they are put together.
    return _WORD.findall(unicodedata.normalize("NFC", text.casefold()))


def task_files(places: Sequence[Location | str]) -> list[Location]:
    """The files that are meant: those given, those that patterns match, and those of known formats in directories.

    Raises:
        DataError: there is no such file, or its name does not show a known format.
    """
    found: list[Location] = []
    for place in map(as_location, places):
        try:
            inside = isinstance(place, Path) and place.is_dir()
            found += _inside(place) if inside else find_inputs([place])  # type: ignore[arg-type]
        except DataError as error:
            raise DataError(f"{_OPTION} {error}") from error
    return found


def _inside(directory: Path) -> list[Path]:
    """Every file of tasks; unlike one of documents, it is often a lone ``.json``."""
    files = sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    tasks = [path for path in files if format_of(path.name) is not None]
    if not tasks:
        raise DataError(f"{directory}: no file of tasks in this directory; looked for {ENDINGS}")
    if others := [path.name for path in files if path not in tasks]:
        warnings.warn(
            f"{_OPTION} {directory}: left out because of their endings: {', '.join(others)}",
            DataWarning,
            stacklevel=2,
        )
    return tasks


def task_items(path: Location) -> Iterator[str]:
    """The items of a task file, each as all of its strings.

    An item is a line of JSON, an element of a JSON array or of the one array in a JSON object, a row of Parquet or
    Arrow, or a paragraph of text between blank lines. Files are read as those of documents are: ``NaN``, a byte order
    mark and endings in capitals are taken.

    Raises:
        DataError: the file cannot be read as its name says.
    """
    kind = format_of(path.name)
    try:
        if kind in (".parquet", ".arrow", ".feather"):
            yield from map(_text_of, _rows(path, kind))
        elif kind == ".txt":
            yield from _BLANK_LINES.split(_content(path).decode("utf-8-sig"))
        elif kind == ".json" and (items := _items_of_json(path)) is not None:
            yield from map(_text_of, items)
        else:
            yield from _lines(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, DataError):
            raise DataError(f"{_OPTION} {error}") from error
        raise DataError(f"{_OPTION} {path}: cannot be read: {error}") from error


@dataclass(frozen=True)
class _AllStrings(DocumentKeys):
    """Takes whatever a line holds for a document: all strings of it."""

    def document(self, line: int, values: Any) -> Document | Malformed:
        return Document(line, b"", "", string=_text_of(values))


def _lines(path: Location) -> Iterator[str]:
    for entry in DocumentFile(path, _AllStrings()):
        if isinstance(entry, Malformed):
            raise DataError(f"{path}:{entry.line}: {entry.reason}")
        yield entry.string


def _content(path: Location) -> bytes:
    import isal.isal_zlib
    import zstandard

    try:
        with CountedStream(path) as raw, decompressed(path, raw) as stream:
            return stream.read()
    except (isal.isal_zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _items_of_json(path: Location) -> list[Any] | None:
    """The items of one value of JSON; None if the content is not one, and may be lines."""
    text = _content(path).decode("utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("["):  # lines are objects
            raise DataError(
                f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}"
            ) from error
        return None
    if isinstance(value, dict):
        arrays = [inner for inner in value.values() if isinstance(inner, list)]
        return arrays[0] if len(arrays) == 1 else [value]
    return value if isinstance(value, list) else [value]


def _rows(path: Location, kind: str) -> Iterator[Any]:
    """Needs pyarrow, which the package always installs; its errors are ``ValueError`` or ``OSError``."""
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as source:
        if kind == ".parquet":
            yield from pyarrow.parquet.read_table(source).to_pylist()
            return
        try:
            table = pyarrow.ipc.open_file(source).read_all()
        except pyarrow.ArrowInvalid:
            source.seek(0)
            table = pyarrow.ipc.open_stream(source).read_all()
        yield from table.to_pylist()


def _text_of(item: Any) -> str:
    return " ".join(_strings(item))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
