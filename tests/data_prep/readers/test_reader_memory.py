"""Reading takes little memory, whatever the size of files and documents."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from peak_memory import reading_growth

from salamandra_data.errors import DataError
from salamandra_data.readers import Document, DocumentFile, DocumentKeys, tables


def texts(count: int, length: int) -> list[str]:
    """Texts that no compression makes much smaller."""
    chance = random.Random(count)
    return [chance.randbytes(length // 2).hex() for _ in range(count)]


def write_parquet(path: Path, column: list[str], rows_at_once: int = 1024) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": column}),
        path,
        row_group_size=len(column),
        compression="none",
        use_dictionary=False,
        write_batch_size=rows_at_once,
    )
    return path


def write_arrow(path: Path, column: list[str], rows_per_batch: int) -> Path:
    table = pyarrow.table({"text": column})
    kind = pyarrow.ipc.new_stream if "stream" in path.name else pyarrow.ipc.new_file
    with kind(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return path


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_archives_that_become_a_thousand_times_as_large_are_read_bit_by_bit(
    tmp_path: Path, ending: str
) -> None:
    line = b'{"text": "' + b"un i dos i " * 400 + b'"}\n'
    compress = gzip.compress if ending == ".gz" else zstandard.compress
    for name, lines in (("small", 10), ("large", 40_000)):
        (tmp_path / f"{name}.jsonl{ending}").write_bytes(compress(line * lines))
    assert (tmp_path / f"large.jsonl{ending}").stat().st_size < 40_000 * len(line) / 100
    documents, mib = reading_growth(tmp_path / f"large.jsonl{ending}", tmp_path / f"small.jsonl{ending}")
    assert documents == 40_000 and mib < 40, mib


def test_a_row_group_of_parquet_is_not_read_whole(tmp_path: Path) -> None:
    small = write_parquet(tmp_path / "small.parquet", texts(10, 100))
    large = write_parquet(tmp_path / "large.parquet", texts(30_000, 4_000))
    assert large.stat().st_size > 110 * 2**20
    documents, mib = reading_growth(large, small)
    assert documents == 30_000 and mib < 60, mib


@pytest.mark.parametrize("short", [0, 40_000])
def test_long_documents_of_parquet_are_read_some_at_a_time(tmp_path: Path, short: int) -> None:
    small = write_parquet(tmp_path / "small.parquet", texts(10, 100))
    column = texts(short, 100) + texts(256, 2**19)
    long = write_parquet(tmp_path / "long.parquet", column, rows_at_once=1)
    documents, mib = reading_growth(long, small)
    assert documents == len(column) and mib < 100, mib


@pytest.mark.parametrize("name", ["a.arrow", "stream.arrow"])
def test_long_documents_of_arrow_take_the_memory_of_one_record_batch(tmp_path: Path, name: str) -> None:
    small = write_arrow(tmp_path / f"small-{name}", texts(10, 100), 10)
    batch_mib = 64
    long = write_arrow(tmp_path / name, texts(4 * batch_mib, 2**20), batch_mib)
    documents, mib = reading_growth(long, small)
    assert documents == 4 * batch_mib and mib < 1.7 * batch_mib, mib


@pytest.mark.parametrize("name", ["a.arrow", "stream.arrow", "a.parquet"])
def test_a_batch_or_page_that_would_fill_the_memory_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_BYTES_AT_ONCE", 2**20)
    write = write_parquet if name == "a.parquet" else write_arrow
    for rows, length in ((20, 2**17), (10, 2**16)):
        file = DocumentFile(write(tmp_path / name, texts(rows, length), rows), DocumentKeys(language="ca"))
        if rows == 10:
            assert len(list(file)) == rows
            continue
        with pytest.raises(
            DataError, match=rf"{name}: has a record batch or page of 0.0 GiB.*\n.*fewer rows"
        ):
            list(file)


@pytest.mark.parametrize("name", ["a.arrow", "stream.arrow", "a.parquet"])
def test_batches_hold_about_a_megabyte_however_the_file_is_cut(tmp_path: Path, name: str) -> None:
    column = texts(3_000, 2_000) + texts(8, 2**20)
    for rows_at_once in (1, len(column)):
        write = write_parquet if name == "a.parquet" else write_arrow
        path = write(tmp_path / name, column, rows_at_once)
        sizes = [
            sum(len(entry.text) for entry in batch if isinstance(entry, Document))
            for batch in DocumentFile(path, DocumentKeys(language="ca")).batches()
        ]
        assert sum(sizes) == sum(map(len, column))
        assert len(sizes) < 18 and max(sizes) < 4 * 2**20, sizes
