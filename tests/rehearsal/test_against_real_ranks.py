"""What a rehearsal says of memory, collectives and saves is what real ranks of small models are seen to do."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest
from rank_jobs import SMALL_CONFIG
from rank_pool import RankPool
from rehearsal_jobs import perform_for_real

from megatron_salamandra.config import load_run_config
from megatron_salamandra.rehearsal import Category, rehearse

_SEQUENCE = "parallel.sequence=true"
LAYOUTS: Final[dict[str, tuple[int, list[str]]]] = {
    "one": (1, []),
    "bf16-DP2-overlap": (
        2,
        ["precision=bf16", "optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true"],
    ),
    "recompute-full": (1, ["training.recompute=full"]),
    "chunked-head": (1, ["kernels.loss_chunk_tokens=24"]),
    "PP2xVPP2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    "PP2-uneven": (2, ["parallel.pipeline=2", "parallel.pipeline_layout=Ettt|tL"]),
    "TP2xPP2": (4, ["parallel.tensor=2", "parallel.pipeline=2", _SEQUENCE]),
}
# Large enough that what matters in large models is most of this one too.
WIDE = ["model.hidden_size=256", "model.ffn_hidden_size=704", "model.vocab_size=2048"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_memory_collectives_and_saves_are_those_of_real_ranks(name: str, rank_pool: RankPool) -> None:
    ranks, overrides = LAYOUTS[name]
    overrides = [*overrides, *WIDE]
    rehearsal = rehearse(load_run_config(str(SMALL_CONFIG), overrides), ranks, "all", exact=True)
    real = rank_pool.run(ranks, perform_for_real, overrides, rehearsal.micro_batches)
    assert rehearsal.problems == ()
    for rehearsed, performed in zip(rehearsal.ranks, real, strict=True):
        assert rehearsed.parameters == performed.parameters
        assert rehearsed.save_bytes == performed.save_bytes
        seen = {peak.phase: peak for peak in performed.peaks}
        assert {peak.phase for peak in rehearsed.peaks} <= seen.keys()
        for mine in rehearsed.peaks:
            if mine.phase == "reduce":
                continue  # gloo reduces a copy of the gradients
            theirs = seen[mine.phase]
            assert mine.total_bytes == pytest.approx(theirs.total_bytes, rel=0.05), mine.phase
            for category in Category:
                size = f"{category.value}_bytes"
                assert getattr(mine, size) == pytest.approx(
                    getattr(theirs, size), abs=0.05 * theirs.total_bytes
                )
        called = Counter((call.name, call.group.name) for call in performed.calls if call.peer is None)
        assert {(use.name, use.group): use.count for use in rehearsed.collectives} == called


def test_micro_batches_that_repeat_are_counted_as_if_they_had_run() -> None:
    for overrides in (
        ["parallel.pipeline=2", "training.global_batch_size=12"],
        ["parallel.pipeline=2", "parallel.virtual_pipeline=2", "training.global_batch_size=12"],
        ["training.global_batch_size=9"],
    ):
        config = load_run_config(str(SMALL_CONFIG), overrides)
        ranks = config.parallel.pipeline
        short, whole = rehearse(config, ranks), rehearse(config, ranks, exact=True)
        assert short.micro_batches_run < whole.micro_batches_run == whole.micro_batches
        for some, all_of_them in zip(short.ranks, whole.ranks, strict=True):
            assert some.collectives == all_of_them.collectives
            assert some.messages == all_of_them.messages
            # Each micro-batch leaves a few numbers for the report.
            assert some.peak.total_bytes == pytest.approx(all_of_them.peak.total_bytes, rel=1e-3)
