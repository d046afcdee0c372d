"""How many ranks there are, and how the model is laid out over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.config import load_run_config
from megatron_salamandra.quickstart import QuickstartError, QuickstartJob
from megatron_salamandra.quickstart.rank_layout import choose_ranks, layout_overrides
from megatron_salamandra.quickstart.training import run_overrides


@pytest.mark.parametrize(
    ("requested", "gpus", "ranks"),
    [
        (None, 0, 4),
        (None, 1, 1),
        (None, 2, 2),
        (None, 3, 2),
        (None, 4, 4),
        (None, 8, 4),
        (8, 0, 8),
        (1, 4, 1),
        (8, 8, 8),
    ],
)
def test_ranks_follow_the_machine(requested: int | None, gpus: int, ranks: int) -> None:
    assert choose_ranks(requested, gpus) == ranks


@pytest.mark.parametrize(("requested", "gpus"), [(3, 0), (0, 0), (6, 8), (4, 2)])
def test_ranks_that_do_not_fit_are_refused(requested: int, gpus: int) -> None:
    with pytest.raises(QuickstartError, match=f"--ranks {requested}"):
        choose_ranks(requested, gpus)


@pytest.mark.parametrize(("ranks", "data"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_every_layout_is_a_valid_run(ranks: int, data: int) -> None:
    config = load_run_config("quickstart", run_overrides(QuickstartJob(out=Path("runs/x")), ranks))
    layout = config.validate_for_world(ranks)
    assert layout.data_parallel_size == data
    assert (config.parallel.tensor, config.parallel.pipeline) == (min(ranks, 2), 2 if ranks >= 4 else 1)
    assert len(layout_overrides(ranks)) == 3


def test_the_preset_validates_before_and_after() -> None:
    config = load_run_config("quickstart", [])
    assert config.validation.at_start
    assert config.validation.at_end
    assert config.checkpoint.at_end
