"""The model that was trained and the model that is exported are one and the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rank_pool import RankPool
from training_runs import TrainingRuns

from megatron_salamandra.hf import ShardedCheckpoint, compare_with_export, export_checkpoint
from megatron_salamandra.hf.mapping import stack_from_huggingface
from megatron_salamandra.weights import WEIGHTS

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("attention", "query_groups", "ranks", "layout"),
    [
        ("mha", 4, 1, []),
        ("gqa", 2, 1, []),
        ("gqa", 2, 4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    ],
    ids=["mha-one-rank", "gqa-one-rank", "gqa-TP2xPP2"],
)
def test_transformers_computes_the_logits_of_the_trained_model(
    attention: str,
    query_groups: int,
    ranks: int,
    layout: list[str],
    runs: TrainingRuns,
    rank_pool: RankPool,
    tokenizer_model: Path,
    tmp_path: Path,
) -> None:
    name = f"export-{attention}-{ranks}"
    # The export needs a real tokenizer, which the synthetic blend has not: room for its ids.
    model = ["model.vocab_size=704", f"model.query_groups={query_groups}"]
    assert (
        runs.train(
            name, ranks, "precision=fp32", "training.steps=2", "optimizer.warmup_steps=1", *model, *layout
        )
        == 0
    )
    run_dir = runs.root / name
    out = tmp_path / "hf"
    export_checkpoint(run_dir, out, tokenizer_model=tokenizer_model, verification_texts=[])
    (parity,) = rank_pool.run(1, compare_with_export, run_dir, out)
    assert parity.max_difference < 1e-4
    assert parity.max_logit > 0.1
    assert parity.positions == 128

    checkpoint = ShardedCheckpoint.open(run_dir)
    exported = dict(checkpoint.huggingface_tensors())
    whole = runs.tensors(name, 2)
    for weight in WEIGHTS:
        stacked = stack_from_huggingface(weight, exported, checkpoint.config.model)
        assert torch.equal(stacked, whole[weight.name]), weight.name
