"""Every choice of kernels computes the same model as Megatron-Core's own unfused code."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.transformer.module import MegatronModule
from rank_jobs import SMALL_CONFIG, loss_and_gradients, train
from rank_pool import RankPool

from megatron_salamandra.config import ConfigError, installed, load_run_config
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.model import transformer_config
from megatron_salamandra.model.activation import SwiGLU, TransformerEngineSwiGLU

transformer_config_module = importlib.import_module("megatron_salamandra.model.megatron_config")

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
    "DP2+overlap": (2, ["optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true"]),
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


@pytest.mark.parametrize(
    ("choice", "module"),
    [
        ("rope=transformer_engine", "transformer_engine"),
        ("swiglu=transformer_engine", "transformer_engine"),
        ("loss=transformer_engine", "transformer_engine"),
        ("weight_gradient=apex", "fused_weight_gradient_mlp_cuda"),
    ],
)
def test_a_missing_package_is_told_before_anything_starts(
    choice: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    assert train([f"kernels.{choice}", f"run_dir={tmp_path / 'run'}"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"command line: kernels.{choice.replace('=', ' = ')}" in said
    assert f"the module {module} is not installed" in said and "fused" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("found", "refused"), [("2.17.1", True), ("2.18.0", False), ("2.20.2+cu13", False)])
def test_a_transformer_engine_whose_loss_diverges_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: str, refused: bool
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda module: object())
    monkeypatch.setattr(installed, "version", lambda package: found)
    config = load_run_config(str(SMALL_CONFIG), ["kernels.loss=transformer_engine"])
    problems = [problem.text for problem in installed.missing_packages(config)]
    assert len(problems) == refused
    assert not refused or "Transformer Engine 2.17.1" in problems[0]


def test_transformer_engines_swiglu_adds_nothing_to_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operation has no sharded state, which Megatron-Core's MLP asks each child for, but an extra one."""

    class Operation(torch.nn.Module):
        def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
            gate, up = gate_up.chunk(2, -1)
            return torch.nn.functional.silu(gate) * up

        def get_extra_state(self) -> str:
            return "recipe"

    package = ModuleType("transformer_engine.pytorch")
    package.ops = SimpleNamespace(SwiGLU=Operation)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformer_engine", ModuleType("transformer_engine"))
    monkeypatch.setitem(sys.modules, "transformer_engine.pytorch", package)
    config = transformer_config(load_run_config(str(SMALL_CONFIG), []), platform_name="host")
    theirs, ours = TransformerEngineSwiGLU(config=config), SwiGLU(config=config)
    gate_up = torch.randn(3, 2, 10)
    torch.testing.assert_close(theirs(gate_up), ours(gate_up.clone()))
    assert isinstance(theirs, MegatronModule)  # so it answers, and of children and state it has none
    assert not theirs.state_dict() and not list(theirs.children())


def test_a_torch_that_cannot_sum_products_in_fp32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer_config_module, "products_sum_in_fp32", lambda device: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    bf16 = load_run_config(str(SMALL_CONFIG), ["precision=bf16"])
    with pytest.raises(ConfigError, match=r"kernels.weight_gradient = fused needs torch.addmm"):
        transformer_config(bf16, platform_name="cuda")
    transformer_config(
        load_run_config(str(SMALL_CONFIG), []), platform_name="cuda"
    )  # fp32 needs no such product


def test_a_torch_without_attention_by_document_is_refused_before_the_model_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    given = ["data.document_masking=true", "kernels.weight_gradient=reference"]
    bf16 = load_run_config(str(SMALL_CONFIG), [*given, "precision=bf16"])
    with pytest.raises(ConfigError, match=r"data.document_masking = true needs torch.nn.attention.varlen"):
        transformer_config(bf16, platform_name="cuda")
    # The host, and fp32 anywhere, mask with a matrix.
    transformer_config(bf16, platform_name="host")
    transformer_config(load_run_config(str(SMALL_CONFIG), given), platform_name="cuda")


def test_a_cuda_kernel_is_refused_on_the_host_platform() -> None:
    config = load_run_config(str(SMALL_CONFIG), ["kernels.weight_gradient=apex"])
    with pytest.raises(ConfigError, match="apex runs on CUDA only"):
        transformer_config(config, platform_name="host")
