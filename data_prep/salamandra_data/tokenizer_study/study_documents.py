"""The documents that a study reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    def __iter__(self) -> Iterator[Document]:
        """The documents.

        Raises:
            DataError: bad input; a malformed line, unless such are to be passed over.
        """
        self.keys.check()
        self.malformed_lines = 0
        for path in find_inputs(self.inputs, out=self.out):
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
