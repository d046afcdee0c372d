"""How pipeline stages send to each other: what the tests on CPU ranks run is what a GPU runs."""

from __future__ import annotations

import pytest
from rank_jobs import SMALL_CONFIG

from megatron_salamandra.config import load_run_config
from megatron_salamandra.model import transformer_config


@pytest.mark.parametrize("layout", [["pipeline=2"], ["pipeline=2", "virtual_pipeline=2"], ["pipeline=4"]])
def test_the_host_sends_as_a_gpu_does(layout: list[str]) -> None:
    config = load_run_config(
        str(SMALL_CONFIG), [f"parallel.{item}" for item in layout] + ["kernels.weight_gradient=reference"]
    )
    host, cuda = (transformer_config(config, platform_name=name) for name in ("host", "cuda"))
    fields = ("batch_p2p_comm", "overlap_p2p_comm", "batch_p2p_sync", "overlap_p2p_comm_warmup_flush")
    assert [getattr(host, field) for field in fields] == [getattr(cuda, field) for field in fields]


def test_interleaved_stages_never_send_in_batches() -> None:
    """With two stages a batch cannot tell an activation from a gradient: both neighbours are one process."""
    config = load_run_config(str(SMALL_CONFIG), ["parallel.pipeline=2", "parallel.virtual_pipeline=2"])
    transformer = transformer_config(config, platform_name="cuda")
    assert transformer.overlap_p2p_comm
    assert not transformer.batch_p2p_comm
