"""The text of each language that a study measures on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, find_inputs
from salamandra_data.storage import Location


def read_documents(
    inputs: Sequence[Location | str], keys: DocumentKeys, *, skip_malformed: bool = False
) -> Iterator[Document]:
    """The documents of all inputs in their order.

    Raises:
        DataError: bad input; a malformed line, unless such are to be passed over.
    """
    for path in find_inputs(inputs):
        for entry in DocumentFile(path, keys):
            if isinstance(entry, Document):
                yield entry
            elif not skip_malformed:
                raise DataError(
                    f"{path}:{entry.line}: {entry.reason}\n  mend the line, or pass over such lines with "
                    "--on-error skip"
                )


def read_language_text(
    inputs: Sequence[Location | str], keys: DocumentKeys, *, max_bytes: int, skip_malformed: bool = False
) -> dict[str, list[str]]:
    """Documents by language, the first ``max_bytes`` of UTF-8 of each, whole documents.

    The document that crosses the limit is cut at its last newline before it, so that one long document does not weigh
    more than the limit; a language's first line is always taken.

    Raises:
        DataError: bad input, or none at all.
    """
    keys.check()
    texts: dict[str, list[str]] = {}
    taken: dict[str, int] = {}
    for entry in read_documents(inputs, keys, skip_malformed=skip_malformed):
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
