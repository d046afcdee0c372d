"""Documents out of files: JSON lines (plain, gzip, zstd), Parquet and plain text."""

from __future__ import annotations

from salamandra_data.readers.document import Document, DocumentKeys, Malformed
from salamandra_data.readers.input_file import DocumentFile, find_inputs

__all__ = ["Document", "DocumentFile", "DocumentKeys", "Malformed", "find_inputs"]
