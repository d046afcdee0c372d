"""Writing a rank's files of tensors, with the checksums of what goes into them; runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import MetadataIndex

from megatron_salamandra.checkpoint.disk import Disk, Stage
from megatron_salamandra.checkpoint.save_plan import Item
from megatron_salamandra.run_directory import SHARDS, BlockSums

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Written:
    """What a rank has written.

    Attributes:
        files: size and checksums of each file, by its path in the checkpoint.
        places: where each block lies, as ``.metadata`` has it.
        retries: attempts that the disk refused at first.
    """

    files: dict[str, dict[str, Any]]
    places: list[tuple[MetadataIndex, _StorageInfo]]
    retries: int


def write_tensor_files(
    files: Sequence[Sequence[Item]], partial: Path, rank: int, disk: Disk, stage: Stage = Stage.TENSORS
) -> Written:
    """Write files ``__RANK_N.distcp`` side by side and have them on the disk.

    Args:
        files: items of each file; tensors on the host.
        partial: directory in which the save is assembled; made if it is not there, any time.
        stage: what an error calls it.
    Raises:
        SaveError: the disk refuses.
    """
    names = [f"__{rank}_{number}.distcp" for number in range(len(files))]

    def write(
        name: str, items: Sequence[Item]
    ) -> tuple[dict[str, Any], list[tuple[MetadataIndex, _StorageInfo]]]:
        path = partial / SHARDS / name
        return disk.attempt(stage, path, lambda: write_file(path, items))

    with ThreadPoolExecutor(max(1, len(files)), thread_name_prefix="tensors") as threads:
        written = list(threads.map(write, names, files))
    entries = {f"{SHARDS}/{name}": entry for name, (entry, _) in zip(names, written, strict=True)}
    return Written(entries, [place for _, places in written for place in places], disk.retries)


def write_file(
    path: Path, items: Iterable[Item]
) -> tuple[dict[str, Any], list[tuple[MetadataIndex, _StorageInfo]]]:
    """Write one file and have it on the disk; returns its size and checksums, and where each block lies.

    Raises:
        OSError: the system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    places = []
    with path.open("wb", buffering=_BUFFER_BYTES) as stream:
        summed = _SummedStream(stream)
        for item in items:
            start = summed.tell()
            if isinstance(item.data, bytes):
                summed.write(item.data)
            else:
                torch.save(_alone(item.data), cast(IO[bytes], summed))
            places.append((item.shape.index, _StorageInfo(path.name, start, summed.tell() - start)))
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": summed.tell(), "xxh3_128": summed.sums.all()}, places


class _SummedStream:
    """A stream that is written in order and summed up on the way."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._bytes, self.sums = stream, 0, BlockSums()

    def write(self, contents: bytes | memoryview) -> int:
        self.sums.update(contents)
        self._stream.write(contents)
        self._bytes += memoryview(contents).nbytes
        return memoryview(contents).nbytes

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None:
        pass


def _alone(tensor: Tensor) -> Tensor:
    """The same memory as a tensor whose storage has nothing else, since torch saves whole storages."""
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    if not tensor.numel():
        return torch.empty_like(tensor)
    seen = torch.from_numpy(tensor.reshape(-1).view(torch.uint8).numpy())
    return seen.view(tensor.dtype).view(tensor.shape)
