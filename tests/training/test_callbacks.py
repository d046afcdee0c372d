"""What callbacks may decide, ask for and keep."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_jobs import SMALL_CONFIG
from training_runs import TrainingRuns

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.training import Action, Decision, configured_callbacks
from megatron_salamandra.training.decision import strongest

SHORT = ["training.steps=6", "optimizer.warmup_steps=2"]


def use(name: str, **options: Any) -> str:
    """An override that adds one callback of ``sample_callbacks``."""
    return f"callbacks={json.dumps([{'path': f'sample_callbacks:{name}', 'options': options}])}"


def answers(by_step: str, **options: Any) -> str:
    """An override that adds ``Answers``; ``by_step`` is like ``{3: skip}``."""
    more = "".join(f", {name}: {json.dumps(value)}" for name, value in options.items())
    return f"callbacks=[{{path: 'sample_callbacks:Answers', options: {{answers: {by_step}{more}}}}}]"


def diary(runs: TrainingRuns, name: str, rank: int = 0) -> list[list[str]]:
    return [json.loads(line) for line in (runs.root / name / f"diary-{rank}.jsonl").read_text().splitlines()]


def test_the_strongest_answer_counts() -> None:
    skip, back, stop = Decision.skip("a"), Decision.roll_back("b"), Decision.stop("c")
    assert strongest([]).action is Action.APPLY
    assert strongest([Decision.apply(), skip]) == skip
    assert strongest([stop, skip, back]) == stop
    assert strongest([skip, back]) == back
    assert strongest([skip, Decision.skip("later")]) == skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_skipped_update_leaves_every_bit_and_counts_as_a_step(runs: TrainingRuns, precision: str) -> None:
    name = f"skipped-{precision}"
    every = ["checkpoint.every_steps=1", "checkpoint.keep_last=null", f"precision={precision}"]
    # Only rank 1 has something against the update; all ranks leave it out.
    assert runs.train(name, 2, *SHORT, *every, answers("{4: skip}", rank=1)) == 0
    before, after = runs.tensors(name, 3), runs.tensors(name, 4)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not all(torch.equal(runs.tensors(name, 5)[key], before[key]) for key in before)
    metrics = runs.metrics(name)
    assert [entry["step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    assert [entry.get("skipped") for entry in metrics] == [None, None, None, True, None, None]
    assert [entry.get("skipped_updates") for entry in metrics] == [None, None, None, 1, 1, 1]
    assert [entry["tokens"] for entry in metrics] == [256 * step for step in range(1, 7)]
    (event,) = [event for event in runs.events(name) if event["event"] == "skip"]
    assert (event["step"], event["reason"]) == (4, "as the test has it")
    state = json.loads((runs.checkpoint(name, 6) / "state.json").read_text())
    assert (state["skipped_updates"], state["consumed_samples"]) == (1, 24)


def test_an_update_that_would_spoil_the_weights_can_be_skipped(runs: TrainingRuns) -> None:
    assert runs.train_until_nan("spared", 2, *SHORT, "guard.on_nonfinite=fail", use("SkipNotFinite")) == 0
    assert [entry["step"] for entry in runs.metrics("spared") if entry.get("skipped")] == [3]
    assert runs.losses("spared")[-1] < runs.losses("spared")[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_roll_back_restores_exactly(runs: TrainingRuns, precision: str) -> None:
    """The repeated steps come to the same bits, moments and bias correction included, and are reported once."""
    straight, rolled = f"never-rolled-{precision}", f"rolled-{precision}"
    common = [*SHORT, "checkpoint.every_steps=2", "checkpoint.asynchronous=true", f"precision={precision}"]
    assert runs.train(straight, 2, *common) == 0
    assert runs.train(rolled, 2, *common, answers("{4: roll_back}", rank=0)) == 0
    assert runs.losses(rolled) == runs.losses(straight)
    expected, found = runs.tensors(straight, 6), runs.tensors(rolled, 6)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    (event,) = [event for event in runs.events(rolled) if event["event"] == "roll_back"]
    assert (event["step"], event["to_step"], event["checkpoint"]) == (4, 2, "step-00000002")


def test_a_roll_back_may_pass_over_samples(runs: TrainingRuns) -> None:
    rolled = answers("{4: roll_back}", pass_over_samples=8)
    assert runs.train("passed-over", 1, *SHORT, "checkpoint.every_steps=2", rolled) == 0
    assert runs.train("not-passed-over", 1, "training.steps=8", "optimizer.warmup_steps=2") == 0
    # Steps 3 and 4 of the first way are not trained on: step 3 of the second way reads the samples of step 5.
    assert runs.losses("passed-over")[:2] == runs.losses("not-passed-over")[:2]
    assert runs.losses("passed-over")[2] != runs.losses("not-passed-over")[2]
    state = json.loads((runs.checkpoint("passed-over", 6) / "state.json").read_text())
    assert state["consumed_samples"] == 24
    assert [segment["first_sample"] for segment in state["position"]["segments"]] == [0, 16]


def test_a_roll_back_that_would_never_end_is_refused(runs: TrainingRuns) -> None:
    again = answers("{4: roll_back}", forget=True)
    assert runs.train("for-ever", 1, *SHORT, "checkpoint.every_steps=2", again) == 1
    assert "step 4 was to be rolled back a second time" in runs.events("for-ever")[-1]["error"]


def test_a_roll_back_needs_a_checkpoint(runs: TrainingRuns) -> None:
    assert runs.train("nowhere-to-go", 1, *SHORT, answers("{2: roll_back}")) == 1
    assert "checkpoint.every_steps" in runs.events("nowhere-to-go")[-1]["error"]


def test_a_stop_ends_the_run_before_the_update_and_resumes_to_the_same_bits(runs: TrainingRuns) -> None:
    assert runs.train("never-stopped", 2, *SHORT) == 0
    assert runs.train("stopped-by-callback", 2, *SHORT, answers("{4: stop}", rank=1)) != 0
    assert len(runs.losses("stopped-by-callback")) == 3
    (event,) = [event for event in runs.events("stopped-by-callback") if event["event"] == "stop"]
    assert (event["step"], event["reason"]) == (3, "as the test has it")
    assert runs.train("stopped-by-callback", 2, *SHORT) == 0
    assert runs.losses("stopped-by-callback") == runs.losses("never-stopped")
    expected, found = runs.tensors("never-stopped", 6), runs.tensors("stopped-by-callback", 6)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_state_goes_through_the_checkpoint(runs: TrainingRuns) -> None:
    half = "training.stop_after_steps=3"
    assert runs.train("remembers", 2, *SHORT, half, answers("{}")) == 75
    state = json.loads((runs.checkpoint("remembers", 3) / "state.json").read_text())
    assert state["callbacks"]["Answers"] == {"asked": 3}
    assert runs.train("remembers", 2, *SHORT, answers("{}")) == 0
    assert [entry["answers"]["asked"] for entry in runs.metrics("remembers")] == [1, 2, 3, 4, 5, 6]


def test_the_state_of_a_callback_that_is_gone_is_told_once(runs: TrainingRuns) -> None:
    assert runs.train("forgotten", 1, *SHORT, "training.stop_after_steps=3", answers("{}")) == 75
    assert runs.train("forgotten", 1, *SHORT) == 0
    log = (runs.root / "forgotten" / "logs" / "rank-0000.log").read_text()
    assert log.count("the state of the callback Answers") == 1
    changes = [event["key"] for event in runs.events("forgotten") if event["event"] == "change"]
    assert changes == ["callbacks"]


def test_a_checkpoint_of_before_there_were_states_resumes(runs: TrainingRuns) -> None:
    assert runs.train("old-format", 1, *SHORT, "training.stop_after_steps=3") == 75
    checkpoint = runs.checkpoint("old-format", 3)
    path, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
    state = json.loads(path.read_text())
    del state["callbacks"], state["skipped_updates"]
    path.write_text(json.dumps(state))
    files = {}
    for name in json.loads(manifest.read_text())["files"]:
        contents = (checkpoint / name).read_bytes()
        files[name] = {"bytes": len(contents), "crc32": zlib.crc32(contents)}
    manifest.write_text(json.dumps({"format": "salamandra-checkpoint-1", "files": files}))
    assert runs.train("old-format", 1, *SHORT, answers("{}")) == 0
    assert [entry.get("answers") for entry in runs.metrics("old-format")][3:] == [
        {"asked": count} for count in (1, 2, 3)
    ]


def test_hooks_are_called_in_order_on_every_rank(runs: TrainingRuns) -> None:
    overrides = ["validation.every_steps=2", "training.steps=4", "optimizer.warmup_steps=2"]
    assert runs.train("hooks", 2, *overrides, use("Diary", save_at=1)) == 0
    for rank in (0, 1):
        assert diary(runs, "hooks", rank) == [
            ["start", "0"],
            ["validation", "2", "5"],
            # Asked for after step 1, agreed on in step 2.
            ["checkpoint", "2", "step-00000002", "True"],
            # The last step is saved before it is validated.
            ["finish", "4"],
            ["checkpoint", "4", "step-00000004", "True"],
            ["validation", "4", "5"],
            ["close"],
        ]


def test_a_stop_that_one_rank_asks_for_stops_all(runs: TrainingRuns) -> None:
    assert runs.train("asked-to-stop", 2, *SHORT, use("Diary", stop_at=2)) != 0
    (event,) = [event for event in runs.events("asked-to-stop") if event["event"] == "stop"]
    assert (event["step"], event["reason"]) == (3, "enough for a test")
    assert runs.checkpoint("asked-to-stop", 3).exists()


def test_an_error_is_told_to_callbacks(runs: TrainingRuns) -> None:
    assert runs.train_until_nan("told-error", 2, *SHORT, "guard.on_nonfinite=fail", use("Diary")) == 1
    for rank in (0, 1):
        assert diary(runs, "told-error", rank)[-2:] == [["error", "TrainingError", "True"], ["close"]]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("[{path: sample_callbacks}]", "expected an import path, package.module:Name"),
        ("[{path: 'nowhere.at_all:X'}]", "there is no module nowhere"),
        ("[{path: 'sample_callbacks:Answer'}]", "did you mean Answers?"),
        ("[{path: 'sample_callbacks:NotACallback'}]", "no subclass of megatron_salamandra.training.Callback"),
        ("[{path: 'sample_callbacks:Diary', options: {save_att: 3}}]", "its options: save_at, stop_at"),
        ("[{path: 'sample_callbacks:Answers'}]", "missing a required argument: 'answers'"),
        (
            "[{path: 'sample_callbacks:Answers', options: {answers: 3}}]",
            "entry 1: sample_callbacks:Answers: 'int'",
        ),
        ("[{path: 'sample_callbacks:Diary', option: {}}]", "did you mean callbacks.options?"),
        ("{path: 'sample_callbacks:Diary'}", "expected a list"),
        (
            "[{path: 'sample_callbacks:Diary'}, {path: 'sample_callbacks:Diary'}]",
            "entry 2: sample_callbacks:Diary: an entry before it is named Diary, too",
        ),
    ],
)
def test_a_callback_that_cannot_be_is_refused_before_anything_is_started(entry: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        configured_callbacks(load_run_config(str(SMALL_CONFIG), [f"callbacks={entry}"]))
    assert str(refusal.value).startswith("command line: callbacks")
    assert expected in str(refusal.value)


def test_a_refused_callback_costs_no_import_of_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from megatron_salamandra.train import main\n"
        f"code = main([{str(SMALL_CONFIG)!r}, 'run_dir={tmp_path / 'run'}', 'callbacks=[{{path: \"a.b:C\"}}]'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["2", "False"]
    assert "callbacks, entry 1: a.b:C: there is no module a" in finished.stderr
    assert not (tmp_path / "run").exists()
