"""Documents between files and datatrove: reading the input, and the files that stages leave for each other.

Reading the input is also where a document's own word for its language is understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import zstandard
from datatrove.data import Document

from megatron_salamandra.foundation.atomic_files import atomic_file
from salamandra_data.curation.counts import UNREADABLE, Removals, Tallies, Tally
from salamandra_data.curation.language_filter import UNKNOWN
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.errors import DataError
from salamandra_data.languages import CODE, LANGUAGES, corpus_language
from salamandra_data.readers import CountedStream, DocumentFile, DocumentKeys, Malformed, decompressed
from salamandra_data.readers import Document as Entry
from salamandra_data.storage import Location


def read_input(
    path: Location,
    name: str,
    settings: CurationSettings,
    removals: dict[str, Removals],
    *,
    read: Tallies,
) -> Iterator[Document]:
    """The documents of an input file that have text, by the corpus language that they declare.

    Args:
        path: of the file.
        name: of the file, in documents' ids.
        settings: of the run.
        removals: takes malformed lines as ``malformed`` and documents without text as ``empty``.
        read: counts by language what was read, removed or not.
    Raises:
        DataError: a line is malformed, or its language cannot be checked, and such are not to be passed over.
    """
    for entry in DocumentFile(path, keys_of(settings)):
        identity = f"{name}:{entry.line}"
        language = None if isinstance(entry, Malformed) else declared_language(entry.language, settings)
        if isinstance(entry, Malformed) or language is None:
            why = entry.reason if isinstance(entry, Malformed) else unknown_language(entry.language)
            if not settings.skip_malformed:
                raise DataError(
                    f"{path}:{entry.line}: {why}\n  mend the line, or pass over such lines with --on-error skip"
                )
            document = Document(text="", id=identity, metadata={"language": UNREADABLE, "detail": why})
            reason = "malformed"
        else:
            metadata = {"language": language, "source": entry.source, "licence": entry.licence}
            document = Document(text=entry.text.decode(), id=identity, metadata=metadata)
            reason = "empty"
        read.setdefault(document.metadata["language"], Tally()).add(1, len(document.text.encode()))
        if document.text.strip():
            yield document
        else:
            removals[reason].write(document)


def write_documents(path: Path, documents: Iterable[Document]) -> Tallies:
    """Write ``.jsonl.zst``, and count by language what was written.

    Raises:
        DataError: the system refused to write.
    """
    written: Tallies = {}
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


@dataclass(frozen=True)
class OptionalLanguage(DocumentKeys):
    """Keys of records that need not name their language: those that do not are in :data:`UNKNOWN`."""

    def document(self, line: int, values: Any) -> Entry | Malformed:
        """As its base class does."""
        if self.language is None and isinstance(values, Mapping) and values.get(self.language_key) is None:
            values = {**values, self.language_key: UNKNOWN}
        return super().document(line, values)


def keys_of(settings: CurationSettings) -> DocumentKeys:
    """The keys of a run's records, of which the language may be missing where it is looked for anyway."""
    keys = settings.keys
    return OptionalLanguage(**vars(keys)) if settings.identify_language else keys


def declared_language(name: str, settings: CurationSettings) -> str | None:
    """The corpus language that a name such as ``nb``, ``ca_ES``, ``sr-Latn`` or ``cat_Latn`` means.

    Returns:
        One of :data:`LANGUAGES` or ``code``. For others: :data:`UNKNOWN` where languages are identified anyway, the
        name as it is where they are not looked at, and None where they are to be checked, which cannot be done.
    """
    language = corpus_language(name)
    if language is None and settings.identify_language:
        return UNKNOWN
    return name if language is None and not settings.check_language else language


def unknown_language(name: str) -> str:
    """Why a document in a language of this name cannot be checked, and what would help."""
    return (
        f"its language {name!r} cannot be checked: it is none of {', '.join(LANGUAGES)} and {CODE}, nor a locale or "
        "ISO 639 code of these; --identify-language looks for it, --no-check-language keeps it"
    )
