"""What ``salamandra explain`` tells of a step is what the loader feeds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_blend import write_blend

from megatron_salamandra.cli import main
from megatron_salamandra.config import load_run_config
from megatron_salamandra.data import RunRecord, StepLoader
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard

OVERRIDES = [
    "model.vocab_size=256",
    "data.sequence_length=256",
    "training.global_batch_size=4",
    "training.steps=7",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run, as far as its data is concerned."""
    directory = tmp_path_factory.mktemp("run")
    plan = BlendPlan.load(write_blend(directory / "data"))
    config = load_run_config(
        "tiny", [*OVERRIDES, f"data.blend={directory / 'data/blend.yaml'}", f"run_dir={directory}"]
    )
    (directory / "config.yaml").write_text(config.to_yaml())
    plan.freeze(directory / "blend.lock.yaml")
    return directory


def test_documents_of_a_step_are_its_tokens(run: Path) -> None:
    record = RunRecord(run)
    for step in (1, 7):
        with StepLoader(
            record.stream.at(step).stream,
            timeline=record.timeline,
            micro_batch_size=4,
            data_parallel_rank=0,
            data_parallel_size=1,
            first_step=step - 1,
        ) as loader:
            [batch] = loader.next_step()
        for row, sample in enumerate(record.step_samples(step)):
            parts = record.contents(step, sample).documents
            assert parts[-1].tokens <= parts[-1].document_tokens
            told = [
                IndexedShard.open(part.shard).document(part.document)[part.first_token :][: part.tokens]
                for part in parts
            ]
            assert np.concatenate(told)[:-1].tolist() == batch.tokens[row].tolist()
            assert all(part.first_token == 0 for part in parts[1:])


def test_only_steps_of_the_run_are_told(run: Path) -> None:
    for step in (0, 8):
        with pytest.raises(DataError, match="the run has steps 1 to 7"):
            RunRecord(run).step_samples(step)


def test_a_rewritten_shard_or_another_blend_is_refused(run: Path, tmp_path: Path) -> None:
    other = write_blend(tmp_path / "other", seed=8)
    with pytest.raises(DataError, match="is not the blend of this run"):
        RunRecord(run, other)
    moved = write_blend(tmp_path / "moved")
    contents = RunRecord(run, moved).contents(1, 0)
    assert contents.documents[0].shard.is_relative_to(tmp_path / "moved")


def test_command_lists_documents_and_narrows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(run), "--step", "3"]) == 0
    whole = capsys.readouterr().out
    assert whole.count("sample ") == 4 and "sample 8: " in whole
    assert main(["explain", str(run), "--step", "3", "--sample", "2"]) == 0
    one = capsys.readouterr().out
    assert one in whole and one.startswith("sample 10: ")
    assert main(["explain", str(run), "--step", "3", "--sample", "4"]) == 1
    assert "samples 0 to 3" in capsys.readouterr().err


def test_no_torch_is_needed(run: Path) -> None:
    program = (
        "import sys; from megatron_salamandra.cli import main; "
        f"main(['explain', {str(run)!r}, '--step', '1']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_what_was_passed_over_is_told_from_the_checkpoint(run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "blend.lock.yaml"):
        shutil.copy(run / name, tmp_path)
    checkpoint = tmp_path / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    trained = RunRecord(run).timeline.passing_over(1, 10).until(3)
    assert trained is not None
    (checkpoint / "state.json").write_text(json.dumps({"position": trained.to_dict()}))
    record = RunRecord(tmp_path)
    assert [record.step_samples(step).start for step in range(1, 8)] == [0, 14, 18, 22, 26, 30, 34]
