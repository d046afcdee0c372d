"""Names of documents, and how a document's number in a stage leads to its name."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datatrove.data import Document

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from salamandra_data.storage import Location

_LINE_BYTES = 8


def short_names(files: Sequence[Location]) -> list[str]:
    """The path of each file below the directory that holds all of them."""
    parts = [str(path).split("/") for path in files]
    shared = 0
    for names in zip(*(names[:-1] for names in parts), strict=False):
        if len(set(names)) > 1:
            break
        shared += 1
    return ["/".join(names[shared:]) for names in parts]


@dataclass(frozen=True)
class DocumentLines:
    """Which lines the documents have that come into a stage, by their numbers there.

    Attributes:
        folder: holds them, a file for each input file.
        names: of the input files.
    """

    folder: Path
    names: Sequence[str]

    def noted(self, documents: Iterable[Document], file: int) -> Iterator[Document]:
        """``documents`` of a file as they are; when the last has gone, their lines are kept."""
        lines = array("Q")
        for document in documents:
            lines.append(int(document.id.rpartition(":")[2]))
            yield document
        atomic_write_bytes(self._path(file), lines.tobytes())

    def name(self, file: int, number: int) -> str:
        """What a document is called: the name of its file, and its line."""
        with open(self._path(file), "rb") as stream:
            stream.seek(_LINE_BYTES * number)
            line = int.from_bytes(stream.read(_LINE_BYTES), sys.byteorder)
        return f"{self.names[file]}:{line}"

    def _path(self, file: int) -> Path:
        return self.folder / f"{file:06d}"
