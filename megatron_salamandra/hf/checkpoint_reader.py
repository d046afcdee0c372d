"""Reading single tensors of a sharded checkpoint: no process group, no Megatron-Core, no GPU.

A layer of a stacked tensor is read on its own, so memory stays at one layer's tensor plus one
stored chunk whatever the size of the model or the number of ranks that wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron_salamandra.checkpoint import load_metadata
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.hf.mapping import Placement, megatron_shapes, placements
from megatron_salamandra.run_directory import (
    CONFIG,
    CheckpointError,
    read_state,
    resolve_checkpoint,
    step_of,
    verify_checkpoint,
)
from megatron_salamandra.weights import WEIGHTS


class _OneTensorPlanner(LoadPlanner):
    """Gives the storage reader the place where one tensor (or slice of it) goes."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def set_up_planner(
        self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        raise NotImplementedError

    def create_local_plan(self) -> LoadPlan:
        raise NotImplementedError

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        raise NotImplementedError

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        raise NotImplementedError

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        raise NotImplementedError

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self.target
        for axis, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            view = view.narrow(axis, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing to do: the reader copied into the view."""


@dataclass(frozen=True)
class ShardedCheckpoint:
    """One complete step directory, opened.

    Args:
        path: the step directory.
        config: the run configuration it was written with.
        state: ``state.json``: step, consumed samples, ledger, ...
    """

    path: Path
    config: RunConfig
    state: dict[str, Any]
    _metadata: Metadata
    _reader: FileSystemReader

    @classmethod
    def open(cls, path: Path) -> ShardedCheckpoint:
        """Open a checkpoint and check that it holds the model its ``config.yaml`` describes.

        Args:
            path: a step directory, a ``checkpoints`` directory or a run directory (then the latest
                complete checkpoint).
        Raises:
            CheckpointError: not a checkpoint, incomplete, damaged, or of another model.
        """
        path = resolve_checkpoint(path)
        verify_checkpoint(path)
        shards = path / "shards"
        checkpoint = cls(
            path=path,
            config=_read_config(path / CONFIG).at_step(step_of(path)),
            state=dict(read_state(path).values),
            _metadata=load_metadata(shards / ".metadata"),
            _reader=FileSystemReader(shards),
        )
        checkpoint._reader.set_up_storage_reader(checkpoint._metadata, is_coordinator=True)
        checkpoint._check_shapes()
        return checkpoint

    @property
    def tokenizer_model(self) -> Path | None:
        """The SentencePiece model stored with the checkpoint, if it has one."""
        path = self.path / "tokenizer.model"
        return path if path.is_file() else None

    @property
    def stored_dtype(self) -> torch.dtype:
        """Dtype of the model's matrices as stored (that of the embedding)."""
        dtype: torch.dtype = self._tensor_metadata(WEIGHTS[0].name).properties.dtype
        return dtype

    def read(self, key: str, layer: int | None = None) -> Tensor:
        """Read one tensor, or the slice of one layer of a stacked one, into CPU memory.

        Args:
            key: Megatron key, such as ``decoder.layers.mlp.linear_fc1.weight``.
            layer: index on the leading axis; None reads the whole tensor.
        Raises:
            CheckpointError: no such tensor, part of it was never saved, or a file is damaged.
        """
        stored = self._tensor_metadata(key)
        offsets, sizes = [0] * len(stored.size), list(stored.size)
        if layer is not None:
            offsets[0], sizes[0] = layer, 1
        target = torch.empty(sizes, dtype=stored.properties.dtype)
        wanted = ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes))
        # Only the chunks that overlap: the helper is quadratic in chunks otherwise.
        items = create_read_items_for_chunk_list(key, stored, [wanted])
        if sum(math.prod(item.lengths) for item in items) < target.numel():
            raise CheckpointError(
                f"{self.path}: the saved chunks of {key} do not cover it"
                f"{'' if layer is None else f' at layer {layer}'}: the checkpoint is damaged\n"
                "  use another step directory"
            )
        for item in items:
            self._read_chunk(key, item, target)
        return target if layer is None else target[0]

    def huggingface_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the model under its Hugging Face name, read one layer's tensor at a time."""
        for placement in placements(self.config.model):
            yield from self.read_placement(placement).items()

    def read_placement(self, placement: Placement) -> dict[str, Tensor]:
        """The Hugging Face tensors made of one Megatron tensor (of one layer)."""
        tensor = self.read(placement.weight.name, placement.layer)
        return placement.to_huggingface(tensor, self.config.model)

    def _read_chunk(self, key: str, item: ReadItem, target: Tensor) -> None:
        file = self._file_of(item.storage_index)
        try:
            self._reader.read_data(LoadPlan([item]), _OneTensorPlanner(target)).wait()
        # torch reports a damaged file as any of RuntimeError, EOFError, UnpicklingError, ValueError...
        except Exception as error:
            raise CheckpointError(
                f"{file}: cannot read {key} from this shard file: it is damaged "
                f"({type(error).__name__})\n  use another step directory"
            ) from error

    def _file_of(self, index: MetadataIndex) -> Path:
        storage: dict[MetadataIndex, Any] = self._reader.storage_data
        return self.path / "shards" / str(storage[index].relative_path)

    def _tensor_metadata(self, key: str) -> TensorStorageMetadata:
        stored = self._metadata.state_dict_metadata.get(key)
        if stored is None or isinstance(stored, BytesStorageMetadata):
            raise CheckpointError(
                f"{self.path}: the checkpoint holds no tensor {key}\n"
                "  it is not a checkpoint of a Salamandra model"
            )
        return stored

    def _check_shapes(self) -> None:
        for key, expected in megatron_shapes(self.config.model).items():
            found = tuple(self._tensor_metadata(key).size)
            if found != expected:
                raise CheckpointError(
                    f"{self.path}: checkpoint of another model: {key} is stored as {list(found)}, but "
                    f"config.yaml (model.name = {self.config.model.name}) says {list(expected)}\n"
                    "  config.yaml must be the one the checkpoint was written with"
                )


def _read_config(path: Path) -> RunConfig:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; the checkpoint does not say which model it holds")
    try:
        return load_run_config(str(path), [])
    except ConfigError as error:
        raise CheckpointError(
            f"{path}: the configuration stored with the checkpoint is not valid\n{error}"
        ) from error
