"""Reading takes little memory, whatever the size of files and documents."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
from peak_memory import reading_growth


def texts(count: int, length: int) -> list[str]:
    """Texts that no compression makes much smaller."""
    chance = random.Random(count)
    return [chance.randbytes(length // 2).hex() for _ in range(count)]


def write_parquet(path: Path, column: list[str]) -> Path:
    pyarrow.parquet.write_table(
        pyarrow.table({"text": column}), path, row_group_size=len(column), compression="none"
    )
    return path


def test_a_row_group_of_parquet_is_not_read_whole(tmp_path: Path) -> None:
    small = write_parquet(tmp_path / "small.parquet", texts(10, 100))
    large = write_parquet(tmp_path / "large.parquet", texts(30_000, 4_000))
    assert large.stat().st_size > 110 * 2**20
    documents, mib = reading_growth(large, small)
    assert documents == 30_000 and mib < 60, mib
