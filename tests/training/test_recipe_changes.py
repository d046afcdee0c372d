"""What a resumed run changes of its recipe is told, or refused."""

from __future__ import annotations

import pytest
from training_runs import TrainingRuns

from megatron_salamandra.config import load_run_config
from megatron_salamandra.training.recipe_changes import recipe_changes

SHORT = ["training.steps=4", "optimizer.warmup_steps=1"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.document_masking=true", [("data.document_masking", False, True)]),
        ("data.reset_positions=true", [("data.reset_positions", False, True)]),
        ("precision=bf16", [("precision", "fp32", "bf16")]),
        ("optimizer.beta2=0.9", [("optimizer.beta2", 0.95, 0.9)]),
        ("training.grad_clip=0.5", [("training.grad_clip", 1.0, 0.5)]),
        ("training.steps=200", []),
        ("data.prefetch_steps=7", []),
        ("data.blend=moved.yaml", []),
    ],
)
def test_changes_of_the_recipe_are_found_and_nothing_else(
    override: str, told: list[tuple[str, object, object]]
) -> None:
    before, now = (load_run_config("tiny", overrides).to_dict() for overrides in ([], [override]))
    assert [(change.key, change.before, change.now) for change in recipe_changes(before, now)] == told


def test_a_resumed_run_tells_that_documents_are_masked_from_here_on(runs: TrainingRuns) -> None:
    masked = ["data.document_masking=true", "data.reset_positions=true"]
    assert runs.train("masked-later", 1, *SHORT, "training.stop_after_steps=2") == 75
    assert runs.train("masked-later", 1, *SHORT, *masked) == 0
    changes = [event for event in runs.events("masked-later") if event["event"] == "change"]
    assert {(event["key"], event["before"], event["now"]) for event in changes} == {
        ("data.document_masking", False, True),
        ("data.reset_positions", False, True),
    }
    log = (runs.root / "masked-later" / "logs" / "rank-0000.log").read_text()
    assert "data.document_masking was False and is True from here on" in log


def test_other_rotary_wavelengths_are_another_model(runs: TrainingRuns) -> None:
    assert runs.train("stretched-later", 1, *SHORT, "training.stop_after_steps=2") == 75
    scaled = "model.rope_scaling={factor: 4, original_sequence_length: 64}"
    assert runs.train("stretched-later", 1, *SHORT, scaled) == 1
    assert "model.rope_scaling is None there" in runs.events("stretched-later")[-1]["error"]
