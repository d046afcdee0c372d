"""A checkpoint that is not as it was written never trains on, and an intact one before it is used instead."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata
from training_runs import TrainingRuns

from megatron_salamandra.checkpoint import load_metadata, weights_only
from megatron_salamandra.run_directory import (
    CheckpointError,
    describe_files,
    verify_checkpoint,
    write_manifest,
)

SHORT = [
    "training.steps=6",
    "optimizer.warmup_steps=2",
    "checkpoint.every_steps=2",
    "checkpoint.keep_last=null",
]


def flip_a_bit(path: Path, draw: random.Random) -> None:
    contents = bytearray(path.read_bytes())
    contents[draw.randrange(len(contents))] ^= 1 << draw.randrange(8)
    path.write_bytes(contents)


@pytest.fixture(scope="module")
def undisturbed(runs: TrainingRuns) -> str:
    assert runs.train("undisturbed", 2, *SHORT) == 0
    return "undisturbed"


def copy_of(runs: TrainingRuns, name: str, request: pytest.FixtureRequest) -> str:
    copy = f"copy-{request.node.name}".replace("/", "-")
    shutil.copytree(runs.root / name, runs.root / copy)
    return copy


def test_every_file_of_a_checkpoint_is_protected(
    runs: TrainingRuns, undisturbed: str, request: pytest.FixtureRequest
) -> None:
    directory = runs.checkpoint(copy_of(runs, undisturbed, request), 6)
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {"manifest.json", "state.json", "config.yaml", "tokenizer.model", ".metadata", "common.pt"} <= {
        path.name for path in files
    }
    draw = random.Random(1)
    for path in files:
        contents = path.read_bytes()
        for _ in range(40):
            flip_a_bit(path, draw)
            with pytest.raises(CheckpointError):
                verify_checkpoint(directory)
            path.write_bytes(contents)
    verify_checkpoint(directory)


@pytest.mark.parametrize("file", ["shards/__1_0.distcp", "shards/.metadata", "state.json", "manifest.json"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_the_run_ends_as_if_nothing_had_been(
    runs: TrainingRuns, undisturbed: str, request: pytest.FixtureRequest, file: str
) -> None:
    name = copy_of(runs, undisturbed, request)
    flip_a_bit(runs.checkpoint(name, 6) / file, random.Random(file))
    assert runs.train(name, 2, *SHORT) == 0
    passed_over = [event for event in runs.events(name) if event["event"] == "checkpoint_passed_over"]
    assert [event["checkpoint"] for event in passed_over] == ["step-00000006"]
    assert Path(file).name in passed_over[0]["reason"]
    assert (runs.root / name / "checkpoints" / "damaged-step-00000006").is_dir()
    assert [entry["step"] for entry in runs.metrics(name)] == [1, 2, 3, 4, 5, 6]
    assert runs.losses(name) == runs.losses(undisturbed)
    expected, found = runs.tensors(undisturbed, 6), runs.tensors(name, 6)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_without_an_intact_checkpoint_nothing_is_started_anew(
    runs: TrainingRuns, undisturbed: str, request: pytest.FixtureRequest
) -> None:
    name = copy_of(runs, undisturbed, request)
    for step in (2, 4, 6):
        flip_a_bit(runs.checkpoint(name, step) / "shards" / "__0_0.distcp", random.Random(step))
    assert runs.train(name, 2, *SHORT) == 1
    assert "no checkpoint is intact" in runs.events(name)[-1]["error"]
    assert all(runs.checkpoint(name, step).is_dir() for step in (2, 4, 6))
    assert runs.losses(name) == runs.losses(undisturbed)


class MakesADirectory:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def renew_manifest(directory: Path) -> None:
    names = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
    write_manifest(directory, describe_files(directory, [name for name in names if name != "manifest.json"]))


@pytest.mark.parametrize("file", [".metadata", "common.pt"])
def test_a_checkpoint_with_a_program_in_it_is_refused_and_the_program_does_not_run(
    runs: TrainingRuns, undisturbed: str, request: pytest.FixtureRequest, tmp_path: Path, file: str
) -> None:
    """Whoever made it has also made a manifest that fits."""
    name = copy_of(runs, undisturbed, request)
    for step in (2, 4, 6):
        hostile = runs.checkpoint(name, step) / "shards" / file
        if file == ".metadata":
            hostile.write_bytes(pickle.dumps(MakesADirectory(tmp_path / "ran")))
        else:
            torch.save({"x": MakesADirectory(tmp_path / "ran")}, hostile)
        renew_manifest(runs.checkpoint(name, step))
    assert runs.train(name, 2, *SHORT, "training.steps=8") == 1
    assert not (tmp_path / "ran").exists()
    assert (
        file in runs.events(name)[-1]["error"] or "Weights only load failed" in runs.events(name)[-1]["error"]
    )


def test_objects_between_the_tensors_are_loaded_without_running_anything(tmp_path: Path) -> None:
    dcp.save({"x": MakesADirectory(tmp_path / "ran")}, checkpoint_id=tmp_path / "shards", no_dist=True)
    with pytest.raises(CheckpointException, match="Weights only load failed"), weights_only():
        dcp.load({"x": None}, checkpoint_id=tmp_path / "shards", no_dist=True)
    assert not (tmp_path / "ran").exists()
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") is None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.distributed.checkpoint.filesystem", "os.system"),
        ("torch.distributed.checkpoint.metadata", "Metadata.__init__.__globals__"),
        ("megatron.core.utils", "subprocess.run"),
        ("megatron.core.dist_checkpointing.strategies.torch", "pickle.loads"),
        ("pathlib", "Path.unlink"),
    ],
)
def test_metadata_may_name_only_what_it_needs(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / ".metadata"
    text = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    path.write_bytes(text + b"\x93.")
    with pytest.raises(CheckpointError, match=f"refusing to load {module}.{name}"):
        load_metadata(path)


class _PicklerOfPython311(pickle.Pickler):
    """Writes members of enumerations as Python 3.11.0 to 3.11.3 do."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, Enum) else NotImplemented


def test_metadata_of_the_first_releases_of_python_311_are_read(tmp_path: Path) -> None:
    dcp.save({"x": torch.ones(3)}, checkpoint_id=tmp_path, no_dist=True)
    metadata = load_metadata(tmp_path / ".metadata")
    with (tmp_path / ".metadata").open("wb") as stream:
        _PicklerOfPython311(stream).dump(metadata)
    assert b"getattr" in (tmp_path / ".metadata").read_bytes()
    assert load_metadata(tmp_path / ".metadata") == metadata


@pytest.mark.parametrize(
    ("holder", "name"),
    [(_MEM_FORMAT_ENCODING, "__reduce_ex__"), (_MEM_FORMAT_ENCODING, "mro"), (Metadata, "__init__")],
)
def test_metadata_may_ask_for_members_of_enumerations_alone(tmp_path: Path, holder: type, name: str) -> None:
    class Asks:
        def __reduce__(self) -> Any:
            return getattr, (holder, name)

    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps(Asks()))
    with pytest.raises(CheckpointError, match=f"refusing to take '{name}' of"):
        load_metadata(path)


def test_a_rolled_back_or_repeated_step_is_saved_beside_a_damaged_one(
    runs: TrainingRuns, undisturbed: str, request: pytest.FixtureRequest
) -> None:
    """What cannot be read now, but is not damaged, keeps its name until the step is saved again."""
    name = copy_of(runs, undisturbed, request)
    manifest = runs.checkpoint(name, 6) / "manifest.json"
    text = json.loads(manifest.read_text())
    manifest.unlink()
    manifest.mkdir()  # cannot be read, as after an error of a disk
    assert text["format"] == "salamandra-checkpoint-2"
    assert runs.train(name, 2, *SHORT) == 0
    verify_checkpoint(runs.checkpoint(name, 6))
    assert (runs.root / name / "checkpoints" / "damaged-step-00000006").is_dir()
