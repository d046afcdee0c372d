"""Reading tensors, and refusing what is not a whole checkpoint of this model."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from megatron_salamandra.config import RunConfig
from megatron_salamandra.hf import ShardedCheckpoint
from megatron_salamandra.hf.mapping import megatron_shapes
from megatron_salamandra.run_directory import CheckpointError, describe_files, write_manifest

ConfigMaker = Callable[..., RunConfig]
Weights = dict[str, Tensor]


@pytest.fixture
def weights(small_config: ConfigMaker, random_weights: Callable[[RunConfig], Weights]) -> Weights:
    return random_weights(small_config())


@pytest.fixture
def step(
    tmp_path: Path, small_config: ConfigMaker, weights: Weights, write_checkpoint: Callable[..., Path]
) -> Path:
    return write_checkpoint(tmp_path / "run/checkpoints/step-00000020", small_config(), weights)


def shard_file(step: Path) -> Path:
    return max((step / "shards").glob("*.distcp"), key=lambda path: path.stat().st_size)


def test_whole_tensors_and_single_layers_are_read_bit_for_bit(step: Path, weights: Weights) -> None:
    checkpoint = ShardedCheckpoint.open(step)
    for key, expected in weights.items():
        assert torch.equal(checkpoint.read(key), expected)
        if key.startswith("decoder.layers."):
            assert torch.equal(checkpoint.read(key, layer=2), expected[2])
    assert checkpoint.state["step"] == 20


def test_a_layer_saved_in_several_chunks_is_put_together(step: Path, weights: Weights) -> None:
    """As four tensor-parallel by pipeline ranks leave it: cut by layer and by rows or columns."""
    key = "decoder.layers.mlp.linear_fc2.weight"
    whole = weights[key]
    checkpoint = ShardedCheckpoint.open(step)
    parts = {
        f"part{layer}{half}": whole[layer : layer + 1, :, half * 24 : half * 24 + 24].clone()
        for layer in range(3)
        for half in range(2)
    }
    dcp.save(parts, checkpoint_id=step / "parts", no_dist=True)
    for file in (step / "parts").glob("*.distcp"):
        file.rename(step / "shards" / f"parts-{file.name}")
    cut = pickle.loads((step / "parts/.metadata").read_bytes())
    stored = checkpoint._tensors.metadata.state_dict_metadata[key]
    stored.chunks = []
    for layer in range(3):
        for half in range(2):
            offset = torch.Size([layer, 0, half * 24])
            stored.chunks.append(ChunkStorageMetadata(offset, torch.Size([1, 32, 24])))
            info = next(v for k, v in cut.storage_data.items() if k.fqn == f"part{layer}{half}")
            info.relative_path = f"parts-{info.relative_path}"
            checkpoint._tensors.metadata.storage_data[MetadataIndex(key, offset)] = info
    assert torch.equal(checkpoint.read(key, layer=1), whole[1])
    assert torch.equal(checkpoint.read(key), whole)
    stored.chunks.pop()
    assert torch.equal(checkpoint.read(key, layer=1), whole[1])
    with pytest.raises(CheckpointError, match="linear_fc2.weight do not cover it at layer 2"):
        checkpoint.read(key, layer=2)


def test_reading_needs_neither_megatron_core_nor_a_process_group(step: Path) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'megatron': raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from megatron_salamandra.hf import ShardedCheckpoint
print(len(list(ShardedCheckpoint.open(Path({str(step)!r})).huggingface_tensors())))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert result.stdout.strip() == str(3 + 3 * 9), result.stderr


def test_the_latest_complete_step_is_read_from_any_level(step: Path) -> None:
    for name in ("step-00000003", "step-00000100"):
        (step.parent / name).mkdir()
    (step.parent / "step-00000003" / "manifest.json").write_text("{}")
    for path in (step, step.parent, step.parent.parent):
        assert ShardedCheckpoint.open(path).path == step


def test_incomplete_checkpoint_is_refused(step: Path) -> None:
    (step / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        ShardedCheckpoint.open(step)
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        ShardedCheckpoint.open(step.parent)


def seal(step: Path) -> None:
    """Record the files as they are now, so that what is wrong with them is found by reading them."""
    files = [str(file.relative_to(step)) for file in step.rglob("*") if file.is_file()]
    write_manifest(step, describe_files(step, [name for name in files if name != "manifest.json"]))


def test_checkpoint_of_another_model_is_refused_with_both_shapes(
    step: Path, small_config: ConfigMaker
) -> None:
    (step / "config.yaml").write_text(small_config(query_groups=4).to_yaml())
    seal(step)
    with pytest.raises(CheckpointError, match=r"another model: .*linear_qkv.* \[3, 64, 32\].* \[3, 96, 32\]"):
        ShardedCheckpoint.open(step)


def test_missing_tensor_is_named(
    tmp_path: Path, small_config: ConfigMaker, weights: Weights, write_checkpoint: Callable[..., Path]
) -> None:
    del weights["output_layer.weight"]
    with pytest.raises(CheckpointError, match=r"no tensor output_layer\.weight"):
        ShardedCheckpoint.open(write_checkpoint(tmp_path / "step-00000020", small_config(), weights))


@pytest.mark.parametrize("size", [0, 3000])
def test_shard_file_cut_short_is_named_before_anything_is_read(step: Path, size: int) -> None:
    file = shard_file(step)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=rf"{file.name} has {size} bytes instead of"):
        ShardedCheckpoint.open(step)


def test_missing_shard_file_is_named_before_anything_is_read(step: Path) -> None:
    file = shard_file(step)
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"{file.name} is missing"):
        ShardedCheckpoint.open(step)


def test_overwritten_shard_file_is_named_when_read(step: Path) -> None:
    file = shard_file(step)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(CheckpointError, match=f"{file.name} does not have its recorded checksum"):
        ShardedCheckpoint.open(step)
    seal(step)
    with pytest.raises(CheckpointError, match=rf"{file.name}: cannot read embedding.* damaged"):
        list(ShardedCheckpoint.open(step).huggingface_tensors())


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps({"a": 1})])
def test_unreadable_metadata_is_refused(step: Path, content: bytes) -> None:
    (step / "shards/.metadata").write_bytes(content)
    seal(step)
    with pytest.raises(CheckpointError, match=r"\.metadata"):
        ShardedCheckpoint.open(step)


class RunsACommand:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


def test_metadata_that_would_run_code_is_refused(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(step)
    (step / "shards/.metadata").write_bytes(pickle.dumps(RunsACommand()))
    seal(step)
    with pytest.raises(CheckpointError, match="refusing to load"):
        ShardedCheckpoint.open(step)
    assert not (step / "harmed").exists()


@pytest.mark.parametrize("file", ["config.yaml", "state.json"])
@pytest.mark.parametrize("content", [None, "{not valid", "[1]"])
def test_unreadable_side_files_are_refused_by_name(step: Path, file: str, content: str | None) -> None:
    if content is None:
        (step / file).unlink()
    else:
        (step / file).write_text(content)
    seal(step)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        ShardedCheckpoint.open(step)


def test_shapes_checked_are_those_of_the_contract(small_config: ConfigMaker) -> None:
    shapes = megatron_shapes(small_config().model)
    assert json.loads(json.dumps(shapes)) == {
        "embedding.word_embeddings.weight": [704, 32],
        "decoder.layers.input_layernorm.weight": [3, 32],
        "decoder.layers.self_attention.linear_qkv.weight": [3, 64, 32],
        "decoder.layers.self_attention.linear_proj.weight": [3, 32, 32],
        "decoder.layers.pre_mlp_layernorm.weight": [3, 32],
        "decoder.layers.mlp.linear_fc1.weight": [3, 96, 32],
        "decoder.layers.mlp.linear_fc2.weight": [3, 32, 48],
        "decoder.final_layernorm.weight": [32],
        "output_layer.weight": [704, 32],
    }
