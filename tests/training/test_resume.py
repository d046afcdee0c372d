"""Stopping and resuming changes nothing."""

from __future__ import annotations

import pytest
import torch
from training_runs import TrainingRuns

HALF = "training.stop_after_steps=10"
LAYOUTS = {
    "TP2+SP": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "PP2": (2, ["parallel.pipeline=2"]),
    "DP2": (2, []),
    # Parameters of other ranks arrive with the next forward pass: a save must send for them.
    "DP2-overlap": (2, ["optimizer.overlap_grad_reduce=true", "optimizer.overlap_param_gather=true"]),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_stop_ten_is_bit_exact(runs: TrainingRuns, layout: str, precision: str) -> None:
    ranks, overrides = LAYOUTS[layout]
    overrides = [*overrides, f"precision={precision}"]
    straight, halves = f"straight-{layout}-{precision}", f"halves-{layout}-{precision}"
    assert runs.train(straight, ranks, *overrides) == 0
    assert runs.train(halves, ranks, *overrides, HALF) == 75
    assert len(runs.losses(halves)) == 10
    assert runs.train(halves, ranks, *overrides) == 0
    assert runs.losses(halves) == runs.losses(straight)
    grad_norms = [[entry["grad_norm"] for entry in runs.metrics(name)] for name in (straight, halves)]
    assert grad_norms[0] == grad_norms[1]
    expected, found = runs.tensors(straight, 20), runs.tensors(halves, 20)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((2, ["parallel.tensor=2"]), (4, ["parallel.pipeline=2"])),
        ((4, ["parallel.tensor=2", "parallel.pipeline=2"]), (1, [])),
        ((2, []), (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"])),
    ],
    ids=["TP2-to-PP2xDP2", "TP2xPP2-to-one", "DP2-to-PP2xVPP2"],
)
def test_resume_in_another_layout_continues_the_run(
    runs: TrainingRuns,
    request: pytest.FixtureRequest,
    first: tuple[int, list[str]],
    second: tuple[int, list[str]],
) -> None:
    if not (runs.root / "unbroken").exists():
        assert runs.train("unbroken", 1) == 0
    name = request.node.callspec.id
    assert runs.train(name, first[0], *first[1], HALF) == 75
    assert runs.train(name, second[0], *second[1]) == 0
    assert runs.losses(name) == pytest.approx(runs.losses("unbroken"), rel=1e-5)


def test_background_saves_hold_the_state_of_their_step(runs: TrainingRuns) -> None:
    """The copy is taken at the save, not when the writer gets to it."""
    assert runs.train("sync", 2, "checkpoint.every_steps=5") == 0
    assert runs.train("async", 2, "checkpoint.every_steps=5", "checkpoint.asynchronous=true") == 0
    saved = {event["step"]: event["time"] for event in runs.events("async") if event["event"] == "checkpoint"}
    assert saved.keys() == {5, 10, 15, 20}
    for step in (10, 15, 20):
        expected, found = runs.tensors("sync", step), runs.tensors("async", step)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_steps_after_the_last_checkpoint_are_repeated_without_a_trace(runs: TrainingRuns) -> None:
    """A run that died at step 13 with a checkpoint of step 10 reports steps 11 to 13 once."""
    assert runs.train("died", 1, HALF) == 75
    metrics = runs.root / "died" / "metrics.jsonl"
    with metrics.open("a") as stream:
        stream.write('{"step": 11, "loss": 99.0}\n{"step": 12, "lo')
    assert runs.train("died", 1) == 0
    assert [entry["step"] for entry in runs.metrics("died")] == list(range(1, 21))
    assert max(runs.losses("died")) < 99


def test_a_finished_run_is_left_alone(runs: TrainingRuns) -> None:
    assert runs.train("finished", 1, "training.steps=6", "optimizer.warmup_steps=2") == 0
    before = runs.metrics("finished")
    assert runs.train("finished", 1, "training.steps=6", "optimizer.warmup_steps=2") == 0
    assert runs.metrics("finished") == before
