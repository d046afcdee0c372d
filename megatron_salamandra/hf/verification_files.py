"""Texts to compare a tokenizer on, out of corpus files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from salamandra_data.readers import Document, DocumentFile, DocumentKeys, find_inputs


def document_texts(paths: Sequence[Path], text_key: str = "text") -> Iterator[str]:
    """The texts of all documents in ``paths``: files, directories or glob patterns.

    Args:
        text_key: key of the text in JSON lines and Parquet. Malformed lines are passed over, as
            tokenising them is.
    Raises:
        DataError: a path holds no readable input; raised on calling, before any text is read.
    """
    keys = DocumentKeys(text=text_key, language="any")
    files = [DocumentFile(path, keys) for path in find_inputs(paths)]
    return (document.text.decode() for file in files for document in file if isinstance(document, Document))
