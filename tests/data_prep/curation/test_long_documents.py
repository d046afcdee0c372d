"""Documents of any length are curated in memory that is a small multiple of theirs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

from salamandra_data.curation.documents import read_documents, write_documents
from salamandra_data.curation.duplicate_search import MINHASH, AnyLanguageWords, NearSignature, SourceName
from salamandra_data.errors import DataError


def document(text: str) -> Document:
    return Document(text=text, id="a:1", metadata={"language": "en"})


def test_the_signature_of_a_long_document_needs_little_memory_and_is_datatroves(tmp_path: Path) -> None:
    ours = NearSignature(tmp_path / "ours", SourceName(across_sources=True))
    theirs = MinhashDedupSignature(str(tmp_path / "theirs"), MINHASH, language=AnyLanguageWords())
    shingles = np.random.default_rng(0).integers(0, 1 << 63, (100_000, 1), dtype=np.uint64)
    tracemalloc.start()
    signature = ours.get_signature(shingles)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # all at once, 112 hashes of 8 bytes of each shingle are 90 MB
    assert signature == theirs.get_signature(shingles)


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_file_between_stages_that_is_cut_short_is_an_error(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "000000.jsonl.zst"
    texts = [f"{number} {number**5} ä" for number in range(20_000)] + ["x" * 3_000_000]
    write_documents(path, map(document, texts))
    assert [found.text for found in read_documents(path)] == texts
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"000000\.jsonl\.zst: cannot be read to its end"):
        list(read_documents(path))
