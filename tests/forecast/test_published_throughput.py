"""Step time against what others measured and published, each row foreseen without itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from megatron_salamandra.forecast import Rates, accuracy_table, fit, median_error, published_rows, row_errors

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"


def test_the_median_error_of_rows_that_took_no_part_in_the_fit_is_at_most_15_per_cent() -> None:
    for one in row_errors():
        print(f"{one.row.name:>16} {one.error:+7.1%} {one.error_without_source:+7.1%}  {one.row.title}")
    assert median_error([one.error for one in row_errors()]) <= 0.15
    assert median_error([one.error_without_source for one in row_errors()]) <= 0.15
    assert max(abs(one.error) for one in row_errors()) <= 0.25


def test_the_constants_in_use_are_those_of_the_fit_to_all_rows() -> None:
    assert fit(published_rows()) == Rates()


def test_a_row_has_no_say_in_its_own_forecast() -> None:
    """Leaving a row out moves the constants, at least for the rows that the fit feels."""
    rows = published_rows()
    moved = [fit([other for other in rows if other is not row]) != Rates() for row in rows]
    assert sum(moved) >= len(rows) // 2


def test_the_table_of_the_page_is_the_one_that_is_computed() -> None:
    shown = re.search(r"<!-- accuracy -->\n(.*?)\n<!-- end -->", PAGE.read_text(encoding="utf-8"), re.S)
    assert shown is not None
    assert shown[1].strip() == accuracy_table()


@pytest.mark.parametrize(
    ("name", "billions"),
    [("1", 8.03), ("5 plain", 70.6), ("9", 1.7), ("10", 7.1), ("11 16B", 16), ("11 32B", 32), ("11 70B", 70)],
)
def test_models_of_the_rows_have_the_sizes_of_their_names(name: str, billions: float) -> None:
    (row,) = [row for row in published_rows() if row.name == name]
    shape = row.work.shape
    total = shape.layers * shape.layer_parameters + 2 * shape.head_parameters
    assert total / 1e9 == pytest.approx(billions, rel=0.03)


@pytest.mark.parametrize(
    ("name", "batch", "gpus"),
    [("6", 128, 8), ("8", 128, 64), ("9", 192, 48), ("11 70B", 384, 768), ("13", 96, 8)],
)
def test_rows_have_the_global_batch_and_gpus_of_their_sources(name: str, batch: int, gpus: int) -> None:
    (row,) = [row for row in published_rows() if row.name == name]
    assert row.work.tokens_per_step == batch * row.work.sequence
    assert row.work.gpus == gpus
