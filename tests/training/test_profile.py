"""``training.profile`` leaves a trace of the steps it names, and changes no number."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_jobs import SMALL_CONFIG
from training_runs import TrainingRuns

from megatron_salamandra.config import ConfigError, load_run_config

SHORT = ["training.steps=6", "optimizer.warmup_steps=1"]


def ranges(trace: Path) -> list[str]:
    """Names of the parts of steps in a trace, in order of their beginning."""
    with gzip.open(trace) as stream:
        events: list[dict[str, Any]] = json.load(stream)["traceEvents"]
    ours = [event for event in events if str(event.get("name", "")).startswith("salamandra/")]
    return [event["name"] for event in sorted(ours, key=lambda event: event["ts"])]


def test_a_trace_has_the_parts_of_the_steps_and_training_the_same_bits(runs: TrainingRuns) -> None:
    assert runs.train("not-profiled", 2, *SHORT) == 0
    profile = "training.profile={steps: [3, 4], ranks: [1], memory: true}"
    assert runs.train("profiled", 2, *SHORT, profile) == 0
    assert runs.losses("profiled") == runs.losses("not-profiled")
    plain, traced = runs.tensors("not-profiled", 6), runs.tensors("profiled", 6)
    assert all(torch.equal(traced[key], tensor) for key, tensor in plain.items())
    (trace,) = (runs.root / "profiled" / "profile").iterdir()
    assert trace.name == "steps-00000003-00000004-rank-0001.trace.json.gz"
    found = ranges(trace)
    for part in ("data", "forward_backward", "update"):
        assert found.count(f"salamandra/{part}") == 2
    first = list(dict.fromkeys(found))
    assert first == [
        f"salamandra/{part}" for part in ("data", "forward_backward", "reduce", "decide", "update")
    ]
    assert not (runs.root / "not-profiled" / "profile").exists()


def test_a_run_that_resumes_among_the_steps_profiles_those_that_are_left(runs: TrainingRuns) -> None:
    name, profile = "profiled-halves", "training.profile={steps: [2, 5]}"
    assert runs.train(name, 1, *SHORT, profile, "training.stop_after_steps=3") == 75
    assert runs.train(name, 1, *SHORT, profile) == 0
    names = [path.name for path in sorted((runs.root / name / "profile").iterdir())]
    assert names == [
        "steps-00000002-00000003-rank-0000.trace.json.gz",
        "steps-00000004-00000005-rank-0000.trace.json.gz",
    ]


@pytest.mark.parametrize(
    "wrong", ["{steps: [5, 3]}", "{steps: [0, 3]}", "{steps: 3}", "{steps: [1, 2], ranks: []}"]
)
def test_what_cannot_be_profiled_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="training.profile"):
        load_run_config(str(SMALL_CONFIG), [f"training.profile={wrong}"])
