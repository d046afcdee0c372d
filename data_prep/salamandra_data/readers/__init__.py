"""Documents out of files and objects: JSON lines (plain, gzip, zstd), Parquet, Arrow and plain text."""

from __future__ import annotations

from salamandra_data.readers.by_products import BY_PRODUCTS, mark_by_products
from salamandra_data.readers.byte_stream import CountedStream, decompressed
from salamandra_data.readers.document import Document, DocumentKeys, Malformed
from salamandra_data.readers.formats import ENDINGS, format_of
from salamandra_data.readers.input_file import DocumentFile, fingerprint
from salamandra_data.readers.inputs import find_inputs
from salamandra_data.readers.overlap import refuse_overlap

__all__ = [
    "BY_PRODUCTS",
    "ENDINGS",
    "CountedStream",
    "Document",
    "DocumentFile",
    "DocumentKeys",
    "Malformed",
    "decompressed",
    "find_inputs",
    "fingerprint",
    "format_of",
    "mark_by_products",
    "refuse_overlap",
]
