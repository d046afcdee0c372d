"""Marks, pruning, comparing and resharding of a run's checkpoints."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import TrainingRuns

from megatron_salamandra import cli
from megatron_salamandra.checkpoint.comparison import blocks_of
from megatron_salamandra.checkpoint.retention import prune
from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.run_directory import (
    RunDirectory,
    checkpoints_in_use,
    complete_checkpoints,
    own,
    step_of,
    verify_checkpoint,
)

SAVING = ["training.steps=6", "optimizer.warmup_steps=2", "checkpoint.every_steps=1"]


@pytest.fixture(scope="module")
def trained(runs: TrainingRuns) -> Path:
    assert runs.train("upkeep", 2, *SAVING, "checkpoint.keep_last=null") == 0
    return runs.root / "upkeep"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def steps(run: Path) -> list[int]:
    return [step_of(path) for path in complete_checkpoints(run / "checkpoints")]


def salamandra(*words: object) -> int:
    return cli.main(["checkpoint", *map(str, words)])


def test_what_is_marked_stays_until_it_is_unmarked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert salamandra("mark", run, 2, "--as", "before-the-change") == 0
    assert salamandra("mark", run, 3) == 0
    capsys.readouterr()
    pruning = ["prune", run, "--keep-last", 1, "--keep-every-steps", 4]
    assert salamandra(*pruning, "--dry-run") == 0
    dry = capsys.readouterr().out
    assert [line.split(",")[0] for line in dry.splitlines()] == [
        "step 1: would be deleted",
        "step 5: would be deleted",
    ]
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    assert salamandra(*pruning) == 0
    assert steps(run) == [2, 3, 4, 6]
    assert capsys.readouterr().out == dry.replace("would be deleted", "deleted")
    assert salamandra("unmark", run, 2) == 0
    assert salamandra(*pruning) == 0
    assert steps(run) == [3, 4, 6]


def test_the_run_itself_keeps_what_is_marked(
    runs: TrainingRuns, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, runs.root / "marked")
    assert salamandra("mark", runs.root / "marked", 3, "--as", "kept") == 0
    more = ["training.steps=8", "optimizer.warmup_steps=2", "checkpoint.every_steps=1"]
    assert runs.train("marked", 2, *more, "checkpoint.keep_last=2") == 0
    assert steps(runs.root / "marked") == [3, 7, 8]
    capsys.readouterr()
    assert salamandra("list", runs.root / "marked", "--checksums") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[-1], "kept" in row) for row in rows] == [
        ("step-00000003", "intact", True),
        ("step-00000007", "intact", False),
        ("step-00000008", "intact", False),
    ]


def test_marks_that_make_no_sense_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert salamandra("mark", run, 99) == 1
    assert "has no checkpoint of step 99\n  there are: 1, 2, 3" in capsys.readouterr().err
    assert salamandra("mark", run, 1, "--as", "one") == 0
    assert salamandra("mark", run, 2, "--as", "one") == 1
    assert "one is the name of step 1" in capsys.readouterr().err
    assert salamandra("unmark", run, 2) == 1
    assert "step 2" in capsys.readouterr().err
    (run / "checkpoints" / "marks.json").write_text('{"1": ')
    assert salamandra("prune", run, "--keep-last", 1) == 1
    assert "marks.json cannot be read" in capsys.readouterr().err
    assert steps(run) == [1, 2, 3, 4, 5, 6]


def test_nothing_is_pruned_while_somebody_else_is_at_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with checkpoints_in_use(run / "checkpoints"):
        assert salamandra("prune", run, "--keep-last", 1) == 1
        assert salamandra("mark", run, 1) == 1
    assert "is being written by" in capsys.readouterr().err
    assert steps(run) == [1, 2, 3, 4, 5, 6]


def test_a_cut_short_checkpoint_does_not_count_as_one_that_is_kept(run: Path) -> None:
    shard = next((run / "checkpoints" / "step-00000006" / "shards").glob("*.distcp"))
    shard.write_bytes(b"")
    prune(run / "checkpoints", CheckpointSection(keep_last=1))
    assert steps(run) == [5, 6]


def test_inspect_says_what_a_checkpoint_is_worth(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    salamandra("mark", run, 6, "--as", "end")
    capsys.readouterr()
    assert salamandra("inspect", run) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["step"] == 6
    assert about["checkpoint"]["mark"] == "end" and about["checkpoint"]["intact"]
    assert about["checkpoint"]["bytes"] == verify_checkpoint(run / "checkpoints" / "step-00000006")
    shard = next((run / "checkpoints" / "step-00000006" / "shards").glob("*.distcp"))
    contents = bytearray(shard.read_bytes())
    contents[random.Random(1).randrange(len(contents))] ^= 1
    shard.write_bytes(contents)
    assert salamandra("inspect", run) == 0
    about = json.loads(capsys.readouterr().out)["checkpoint"]
    assert not about["intact"] and str(shard) in about["damage"]


def test_diff_finds_what_differs_whatever_the_layout(
    runs: TrainingRuns, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained / "checkpoints" / "step-00000001"
    assert salamandra("diff", first, first) == 0
    assert " 0 differ" in capsys.readouterr().out
    assert salamandra("diff", first, trained) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("optimizer.state.exp_avg.") for line in lines)
    assert runs.train("upkeep-tp", 2, *SAVING, "training.stop_after_steps=1", "parallel.tensor=2") == 75
    salamandra("diff", first, runs.root / "upkeep-tp")
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("only in")]
    assert max(float(line.split()[-1]) for line in lines[2:-1]) < 1e-3  # sums in another order


def test_a_resharded_checkpoint_has_the_same_tensors_and_trains_on_in_another_layout(
    runs: TrainingRuns, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from megatron_salamandra.checkpoint import reshard

    monkeypatch.setattr(reshard, "BLOCK_BYTES", 4096)  # so that tensors are cut
    source = trained / "checkpoints" / "step-00000003"
    out = runs.root / "resharded"
    assert salamandra("reshard", source, "--ranks", 4, "--out", out) == 0
    written = out / "checkpoints" / "step-00000003"
    verify_checkpoint(written)
    assert len(list((written / "shards").glob("__*.distcp"))) == 8
    assert salamandra("diff", source, written) == 0
    assert salamandra("reshard", source, "--ranks", 4, "--out", out) == 1
    assert "is there already" in capsys.readouterr().err
    layout = ["parallel.tensor=2", "parallel.pipeline=2"]
    assert runs.train("resharded", 4, *SAVING, *layout) == 0
    assert runs.losses("resharded") == pytest.approx(runs.losses("upkeep")[3:], rel=1e-5)


def test_reshard_keeps_out_of_the_directory_of_a_run_that_lives(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, live = trained / "checkpoints" / "step-00000003", tmp_path / "live"
    writing = live / "checkpoints" / ".partial-step-00000009" / "token" / "shards"
    writing.mkdir(parents=True)
    with own(RunDirectory(live)):
        assert salamandra("reshard", source, "--ranks", 1, "--out", live) != 0
        assert "is being used by" in capsys.readouterr().err
        assert writing.is_dir()
    assert salamandra("reshard", source, "--ranks", 1, "--out", live) == 0
    assert steps(live) == [3]
    assert not [path.name for path in live.iterdir() if path.name in (".lock", ".owner")]


def test_a_state_that_is_bound_to_its_layout_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from megatron_salamandra.checkpoint import stored_tensors

    bound = "optimizer.distributed.dp_group_idx_0.gbuf_idx_0.dtype_torch.float32.bucket_idx_0.exp_avg"
    monkeypatch.setattr(stored_tensors.StoredTensors, "names", property(lambda self: [bound]))
    assert salamandra("reshard", run, "--ranks", 1, "--out", run.parent / "out") == 1
    assert "in the buckets of the layout it was saved in" in capsys.readouterr().err
    assert not (run.parent / "out" / "checkpoints").exists()


@pytest.mark.parametrize("size", [(), (1,), (7,), (3, 5), (4, 1, 6), (2, 3, 4, 5)])
@pytest.mark.parametrize("block_bytes", [4, 16, 40, 10_000])
def test_blocks_cover_a_tensor_once(size: tuple[int, ...], block_bytes: int) -> None:
    seen = torch.zeros(size)
    for offset, shape in blocks_of(torch.Size(size), 4, block_bytes):
        seen[tuple(slice(o, o + s) for o, s in zip(offset, shape, strict=True))] += 1
        assert 4 * torch.Size(shape).numel() <= max(block_bytes, 4)
    assert bool((seen == 1).all())


def test_upkeep_needs_no_torch(run: Path) -> None:
    words = [
        ["list", run],
        ["mark", run, 1],
        ["unmark", run, 1],
        ["prune", run, "--keep-last", 2],
        ["inspect", run],
    ]
    program = (
        "import sys; from megatron_salamandra import cli\n"
        f"for words in {[[str(w) for w in command] for command in words]!r}:\n"
        "    assert cli.main(['checkpoint', *words]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
