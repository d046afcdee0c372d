"""Reading tensors of a checkpoint one at a time, or a part of one: no process group, no Megatron-Core, no GPU.

Memory stays at what is asked for plus one stored block, whatever the size of the model or the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

from megatron_salamandra.checkpoint.metadata import check_pieces, load_metadata
from megatron_salamandra.run_directory import SHARDS, CheckpointError


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


class StoredTensors:
    """The tensors of one checkpoint directory, whose ``.metadata`` was read; prove the checkpoint before."""

    def __init__(self, directory: Path) -> None:
        """Open it.

        Raises:
            CheckpointError: ``.metadata`` cannot be read.
        """
        self.directory = directory
        self.metadata = load_metadata(directory / SHARDS / ".metadata")
        names = {str(place.relative_path) for place in self.metadata.storage_data.values()}
        check_pieces(directory / SHARDS, self.metadata, names)
        self._reader = FileSystemReader(directory / SHARDS)
        self._reader.set_up_storage_reader(self.metadata, is_coordinator=True)

    @property
    def names(self) -> list[str]:
        """Keys of all tensors, sorted."""
        entries = self.metadata.state_dict_metadata.items()
        return sorted(key for key, entry in entries if isinstance(entry, TensorStorageMetadata))

    @property
    def objects(self) -> list[str]:
        """Keys of what is stored and no tensor, sorted."""
        entries = self.metadata.state_dict_metadata.items()
        return sorted(key for key, entry in entries if isinstance(entry, BytesStorageMetadata))

    def stored(self, key: str) -> TensorStorageMetadata:
        """Shape, dtype and blocks of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        entry = self.metadata.state_dict_metadata.get(key)
        if not isinstance(entry, TensorStorageMetadata):
            raise CheckpointError(
                f"{self.directory}: the checkpoint holds no tensor {key}\n"
                "  it is not a checkpoint of a Salamandra model"
            )
        return entry

    def read(
        self, key: str, offsets: Sequence[int] | None = None, sizes: Sequence[int] | None = None
    ) -> Tensor:
        """Read a tensor, or a block of it, into the host's memory.

        Args:
            offsets, sizes: of the block; None means the whole tensor.
        Raises:
            CheckpointError: no such tensor, part of it was never saved, or a file is damaged.
        """
        whole = self.stored(key).size
        if offsets is None or sizes is None:
            return self._read(key, [0] * len(whole), whole, "")
        return self._read(key, offsets, sizes, f" at {list(offsets)}")

    def read_layer(self, key: str, layer: int) -> Tensor:
        """Read the slice of one layer of a stacked tensor, without the leading axis; raises as :meth:`read` does."""
        rest = list(self.stored(key).size[1:])
        return self._read(key, [layer, *[0] * len(rest)], [1, *rest], f" at layer {layer}")[0]

    def _read(self, key: str, offsets: Sequence[int], sizes: Sequence[int], where: str) -> Tensor:
        stored = self.stored(key)
        target = torch.empty(list(sizes), dtype=stored.properties.dtype)
        wanted = ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes))
        # Only the chunks that overlap: the helper is quadratic in chunks otherwise.
        items = create_read_items_for_chunk_list(key, stored, [wanted])
        if sum(math.prod(item.lengths) for item in items) < target.numel():
            raise CheckpointError(
                f"{self.directory}: the saved chunks of {key} do not cover it{where}: the checkpoint is damaged\n"
                "  use another step directory"
            )
        for item in items:
            self._read_chunk(key, item, target)
        return target

    def read_object(self, key: str) -> bytes:
        """What is stored of an object, not looked into.

        Raises:
            CheckpointError: it cannot be read.
        """
        place = self.metadata.storage_data[MetadataIndex(key)]
        path = self.directory / SHARDS / str(place.relative_path)
        try:
            with path.open("rb") as stream:
                stream.seek(place.offset)
                return stream.read(place.length)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read: {error.strerror}; use another checkpoint"
            ) from error

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
        return self.directory / SHARDS / str(storage[index].relative_path)
