"""The models we build have exactly the parameters of the published ones."""

from __future__ import annotations

import pytest
from rank_jobs import preset_parameters
from rank_pool import RankPool

MODEL_CARDS = {
    "salamandra-2b": 2_253_490_176,
    "salamandra-7b": 7_768_117_248,
    "salamandra-40b": 40_433_885_184,
}


@pytest.mark.parametrize("preset", MODEL_CARDS)
def test_built_model_has_the_parameters_of_the_model_card(rank_pool: RankPool, preset: str) -> None:
    assert rank_pool.run(1, preset_parameters, preset) == [MODEL_CARDS[preset]]
