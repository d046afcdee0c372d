"""The documents that a study reads, and the text of each language that it measures on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, find_inputs
from salamandra_data.storage import Location


@dataclass
class StudyDocuments:
    """The documents of all inputs in their order, read anew whenever they are iterated over.

    Attributes:
        inputs: files, directories or patterns.
        keys: where text and language are in a record.
        skip_malformed: pass over malformed lines and count them, instead of stopping at the first.
        out: where the study will write, apart from the inputs.
        malformed_lines: how many the last iteration passed over.
    """

    inputs: Sequence[Location | str]
    keys: DocumentKeys = field(default_factory=DocumentKeys)
    skip_malformed: bool = False
    out: Path | None = None
    malformed_lines: int = field(default=0, init=False)

    def files(self) -> list[Location]:
        """The files of all inputs.

        Raises:
            DataError: keys or inputs cannot be used, or ``out`` is inside them.
        """
        self.keys.check()
        return find_inputs(self.inputs, out=self.out)

    def __iter__(self) -> Iterator[Document]:
        """The documents.

        Raises:
            DataError: bad input; a malformed line, unless such are to be passed over.
        """
        self.malformed_lines = 0
        for path in self.files():
            for entry in DocumentFile(path, self.keys):
                if isinstance(entry, Document):
                    yield entry
                elif self.skip_malformed:
                    self.malformed_lines += 1
                else:
                    raise DataError(
                        f"{path}:{entry.line}: {entry.reason}\n  mend the line, or pass over such lines with "
                        "--on-error skip"
                    )


def read_language_text(documents: Iterable[Document], *, max_bytes: int) -> dict[str, list[str]]:
    """Documents by language, the first ``max_bytes`` of UTF-8 of each, whole documents.

    The document that crosses the limit is cut at its last newline before it, so that one long document does not weigh
    more than the limit; a language's first line is always taken.

    Raises:
        DataError: there is no text at all.
    """
    texts: dict[str, list[str]] = {}
    taken: dict[str, int] = {}
    for entry in documents:
        room = max_bytes - taken.get(entry.language, 0)
        text = entry.text if len(entry.text) <= room else entry.text[: entry.text.rfind(b"\n", 0, room) + 1]
        if not text and entry.language not in texts:
            text = entry.text.split(b"\n", 1)[0]
        if room > 0 and text:
            texts.setdefault(entry.language, []).append(text.decode())
            taken[entry.language] = taken.get(entry.language, 0) + len(text)
    if not texts:
        raise DataError("the input holds no text to measure tokenizers on")
    return dict(sorted(texts.items()))


def check_languages(option: str, asked: Iterable[str], there: Collection[str]) -> None:
    """Refuse languages that there is no text in.

    Raises:
        DataError: naming the option, the languages, and those of the text.
    """
    if missing := [language for language in asked if language not in there]:
        raise DataError(
            f"{option} {' '.join(missing)}: the input holds no text of this language\n"
            f"  there is text of {', '.join(sorted(there))}"
        )
