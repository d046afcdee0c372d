"""Documents between files and datatrove: reading the input, and the files that stages leave for each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard
from datatrove.data import Document

from salamandra_data.atomic_write import atomic_file
from salamandra_data.curation.removals import Removals, Tally
from salamandra_data.errors import DataError
from salamandra_data.readers import CountedStream, DocumentFile, DocumentKeys, Malformed, decompressed
from salamandra_data.storage import Location

UNREADABLE = "?"
"""In place of a language, for lines that could not be read."""


def read_input(
    path: Location,
    keys: DocumentKeys,
    removals: dict[str, Removals],
    *,
    skip_malformed: bool,
    read: dict[str, Tally],
) -> Iterator[Document]:
    """The documents of an input file that have text.

    Args:
        path: of the file.
        keys: where text and language are.
        removals: takes malformed lines as ``malformed`` and documents without text as ``empty``.
        skip_malformed: whether malformed lines are passed over.
        read: counts by language what was read, removed or not.
    Raises:
        DataError: a line is malformed and not to be passed over.
    """
    for entry in DocumentFile(path, keys):
        identity = f"{path.name}:{entry.line}"
        if isinstance(entry, Malformed):
            if not skip_malformed:
                raise DataError(
                    f"{path}:{entry.line}: {entry.reason}\n"
                    "  mend the line, or pass over such lines with --on-error skip"
                )
            document = Document(
                text="", id=identity, metadata={"language": UNREADABLE, "detail": entry.reason}
            )
            reason = "malformed"
        else:
            metadata = {"language": entry.language, "source": entry.source, "licence": entry.licence}
            document = Document(text=entry.text.decode(), id=identity, metadata=metadata)
            reason = "empty"
        read.setdefault(document.metadata["language"], Tally()).add(1, len(document.text.encode()))
        if document.text.strip():
            yield document
        else:
            removals[reason].write(document)


def write_documents(path: Path, documents: Iterable[Document]) -> dict[str, Tally]:
    """Write ``.jsonl.zst``, and count by language what was written.

    Raises:
        DataError: the system refused to write.
    """
    written: dict[str, Tally] = {}
    with (
        atomic_file(path) as raw,
        zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) as stream,
    ):
        for document in documents:
            values = {"text": document.text, "id": document.id, **_known(document.metadata)}
            stream.write(orjson.dumps(values) + b"\n")
            written.setdefault(document.metadata["language"], Tally()).add(1, len(document.text.encode()))
    return written


def read_documents(path: Path) -> Iterator[Document]:
    """What :func:`write_documents` wrote.

    Raises:
        DataError: the file is cut short or damaged.
    """
    try:
        with CountedStream(path) as raw, decompressed(path, raw) as stream:
            for line in stream:
                values = orjson.loads(line)
                yield Document(text=values.pop("text"), id=values.pop("id"), metadata=values)
    except (OSError, EOFError, zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read to its end: {error}\n  it is this run's own and damaged: remove --out, run again"
        ) from error


def _known(metadata: dict[str, Any]) -> dict[str, Any]:
    """What of a document's metadata is worth keeping."""
    kept = {key: metadata[key] for key in ("language", "source", "licence") if metadata.get(key) is not None}
    if "quality_score" in metadata:
        kept["quality_score"] = round(metadata["quality_score"], 4)
    return kept
