"""Every choice of kernels computes the same model as Megatron-Core's own unfused code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rank_jobs import SMALL_CONFIG, loss_and_gradients, train
from rank_pool import RankPool

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.exit_protocol import EXIT_USAGE
from megatron_salamandra.model import transformer_config

REFERENCE = [f"kernels.{key}=reference" for key in ("rope", "swiglu", "loss", "weight_gradient")]
LAYOUTS = {
    "one": (1, []),
    "multi-head": (1, ["model.query_groups=4"]),
    "stretched-rope": (
        1,
        ["model.rope_scaling.factor=4", "model.rope_scaling.original_sequence_length=16"],
    ),
    "TP2": (2, ["parallel.tensor=2"]),
    "TP2+SP": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "PP2": (2, ["parallel.pipeline=2"]),
    "PP2xVPP2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    "recompute": (1, ["training.recompute=full"]),
    "overlap": (1, ["optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true"]),
}
CHOICES = {
    "fused": [],
    "chunked": ["kernels.loss_chunk_tokens=24"],  # does not divide the 64 tokens of a micro-batch
}


@pytest.fixture(scope="module")
def reference(rank_pool: RankPool) -> dict[str, list[dict[str, Any]]]:
    return {
        name: rank_pool.run(ranks, loss_and_gradients, [*REFERENCE, *overrides])
        for name, (ranks, overrides) in LAYOUTS.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("choice", CHOICES)
def test_loss_and_gradients_equal_the_unfused_code(
    rank_pool: RankPool, reference: dict[str, list[dict[str, Any]]], layout: str, choice: str
) -> None:
    ranks, overrides = LAYOUTS[layout]
    found = rank_pool.run(ranks, loss_and_gradients, [*CHOICES[choice], *overrides])
    for ours, theirs in zip(found, reference[layout], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-6)
        assert ours["state"] == theirs["state"]
        assert ours["gradients"].keys() == theirs["gradients"].keys()
        for name, gradient in theirs["gradients"].items():
            assert np.abs(gradient).max() > 0, name
            assert np.abs(ours["gradients"][name] - gradient).max() <= 1e-6 * np.abs(gradient).max(), name


@pytest.mark.parametrize("layout", ["one", "TP2+SP"])
def test_the_z_loss_does_not_depend_on_chunks(rank_pool: RankPool, layout: str) -> None:
    ranks, overrides = LAYOUTS[layout]
    z_loss = ["training.z_loss=1e-2", *overrides]
    whole = rank_pool.run(ranks, loss_and_gradients, z_loss)[0]
    chunked = rank_pool.run(ranks, loss_and_gradients, [*z_loss, *CHOICES["chunked"]])[0]
    assert whole["loss"] > whole["validation"] * 1.001  # the term is there, and only in training
    assert chunked["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    for name, gradient in whole["gradients"].items():
        assert np.abs(chunked["gradients"][name] - gradient).max() <= 1e-6 * np.abs(gradient).max(), name


@pytest.mark.parametrize("choice", ["rope=transformer_engine", "swiglu=transformer_engine"])
def test_a_missing_package_is_told_before_anything_starts(
    choice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("transformer_engine") is not None:
        pytest.skip("transformer_engine is installed")
    assert train([f"kernels.{choice}", f"run_dir={tmp_path / 'run'}"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"command line: kernels.{choice.replace('=', ' = ')}" in said
    assert "transformer_engine is not installed" in said and "fused" in said
    assert not (tmp_path / "run").exists()


def test_a_cuda_kernel_is_refused_on_the_host_platform() -> None:
    config = load_run_config(str(SMALL_CONFIG), ["kernels.weight_gradient=apex"])
    with pytest.raises(ConfigError, match="apex runs on CUDA only"):
        transformer_config(config, platform_name="host")
