"""Blends and initial weights that are not there are wrong configuration: found first, and told once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG

from megatron_salamandra import train
from megatron_salamandra.config import load_run_config
from megatron_salamandra.run_directory import MANIFEST, RunDirectory, step_directory
from megatron_salamandra.training import check_initial_weights


@pytest.fixture
def places(tmp_path: Path, blend: Path) -> dict[str, Path]:
    """By name in a message: what somebody may name by mistake."""
    (tmp_path / "text.yaml").write_text("a text\n")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    for run, hidden in (("other", 128), ("damaged", None)):
        checkpoint = step_directory(tmp_path / run / "checkpoints", 3)
        checkpoint.mkdir(parents=True)
        (checkpoint / MANIFEST).write_text("{}")
        override = [f"model.hidden_size={hidden}"] if hidden else []
        text = load_run_config(str(SMALL_CONFIG), override).to_yaml() if hidden else "model: 7"
        (checkpoint / "config.yaml").write_text(text)
    (tmp_path / "begun" / "checkpoints" / "step-00000003").mkdir(parents=True)
    return {"root": tmp_path, "blend": blend}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.blend=null", "data.blend is not set"),
        ("data.blend={root}/nowhere.yaml", "data.blend = {root}/nowhere.yaml is no blend plan"),
        ("data.blend={root}", "data.blend = {root} is no blend plan"),
        ("data.blend={root}/text.yaml", "data.blend = {root}/text.yaml is no blend plan"),
        ("data.blend=" + str(SMALL_CONFIG), "is no blend plan"),
        ("phases.a={steps: 2, blend: {root}/no.yaml}", "phases.a.blend = {root}/no.yaml is no blend plan"),
        (
            "initialize_from={root}/nowhere",
            "initialize_from = {root}/nowhere: {root}/nowhere: no such directory",
        ),
        ("initialize_from={root}/begun", "initialize_from = {root}/begun: {root}/begun holds no complete"),
        ("initialize_from={root}/begun/checkpoints/step-00000003", "it was never completed"),
        ("initialize_from={root}/text.yaml", "initialize_from = {root}/text.yaml: "),
        ("initialize_from={root}/hf", "a Hugging Face model, which training cannot start from yet"),
        ("initialize_from={root}/other", "another model: model.hidden_size is 128 there and 64 in this run"),
        ("initialize_from={root}/damaged", "config.yaml cannot be read"),
    ],
)
def test_a_wrong_place_is_told_once_and_nothing_is_begun(
    places: dict[str, Path], override: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = places["root"] / "run"

    def written(text: str) -> str:
        return text.replace("{root}", str(places["root"]))

    arguments = [f"data.blend={places['blend']}", f"run_dir={run}", "optimizer.warmup_steps=0"]
    assert train.main([str(SMALL_CONFIG), *arguments, written(override)]) == 2
    told = capsys.readouterr().err
    assert written(expected) in told
    assert len(told.splitlines()) <= 3, told
    assert not run.exists()


def test_phases_without_any_blend_are_refused_by_their_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["phases.a.steps=2", "optimizer.warmup_steps=0", f"run_dir={tmp_path / 'run'}"]
    assert train.main([str(SMALL_CONFIG), *overrides]) == 2
    assert "phases.a.blend is not set" in capsys.readouterr().err


def test_a_wrong_place_is_found_without_torch(tmp_path: Path, blend: Path) -> None:
    common = [str(SMALL_CONFIG), f"run_dir={tmp_path / 'run'}"]
    wrong = [["data.blend=nowhere.yaml"], [f"data.blend={blend}", "initialize_from=nowhere"]]
    program = (
        "import sys; from megatron_salamandra.train import main\n"
        f"codes = [main(arguments) for arguments in {[[*common, *more] for more in wrong]!r}]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert finished.stdout.strip() == "[2, 2] False", finished.stderr


def test_the_donor_of_a_run_that_resumes_may_be_gone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    config = load_run_config(str(SMALL_CONFIG), [f"initialize_from={tmp_path / 'gone'}"])
    saved = step_directory(run.checkpoints, 2)
    saved.mkdir(parents=True)
    (saved / MANIFEST).write_text(json.dumps({}))
    check_initial_weights(config, run)
