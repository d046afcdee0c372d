"""Writing a checkpoint anew for another number of ranks, on the host and with bounded memory.

A checkpoint of ours can be loaded in any layout as it is. Where it was saved by few ranks and is to be loaded by many,
each of them would open the same few large files; written anew, its tensors lie in as many files as the new ranks write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import MetadataIndex

from megatron_salamandra.checkpoint.comparison import blocks_of
from megatron_salamandra.checkpoint.completion import metadata_bytes
from megatron_salamandra.checkpoint.save_plan import FILES_PER_RANK, Item, Shape, metadata_of
from megatron_salamandra.checkpoint.stored_tensors import StoredTensors
from megatron_salamandra.checkpoint.tensor_files import write_file
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes, sync_directory, write_error
from megatron_salamandra.run_directory import (
    MANIFEST,
    SHARDS,
    CheckpointError,
    RunDirectory,
    begin_partial,
    describe_files,
    drop_partial,
    own,
    publish_partial,
    step_directory,
    step_of,
    verify_checkpoint,
    write_manifest,
)

BLOCK_BYTES = 256 << 20
"""Of a tensor, held at once; torch keeps a second copy while it writes."""
_BOUND_TO_A_LAYOUT = "optimizer.distributed."
"""Begins what Megatron-Core's ``dp_reshardable`` format calls the optimizer's buckets."""


def reshard_checkpoint(source: Path, run: Path, ranks: int) -> Path:
    """Write the tensors of a checkpoint into two files for each of ``ranks`` ranks; everything else stays as it is.

    Args:
        source: a checkpoint directory.
        run: run directory that gets it, below ``checkpoints``.
    Returns:
        The new checkpoint.
    Raises:
        CheckpointError: the source is damaged or bound to the layout it was saved in, or the target is there.
        RunDirectoryError: a run that lives owns the run directory.
        WriteError: the target cannot be written.
    """
    root = RunDirectory(run).checkpoints
    final = step_directory(root, step_of(source))
    if final.exists():
        raise CheckpointError(f"{final} is there already\n  choose another run directory")
    verify_checkpoint(source)
    stored = StoredTensors(source)
    if bound := [name for name in (*stored.names, *stored.objects) if name.startswith(_BOUND_TO_A_LAYOUT)]:
        raise CheckpointError(
            f"{source}: its optimizer state lies in the buckets of the layout it was saved in ({bound[0]}), so it "
            "cannot be read in another\n  load it in that layout and save it with this trainer, or export its weights"
        )
    # Beginning clears away what saves have left there, which must not be a save that is running.
    with own(RunDirectory(run)) as owner:
        try:
            partial = begin_partial(root, step_of(source), owner.token)
            try:
                _write(stored, partial, ranks)
                owner.check()
                publish_partial(partial, final)
                sync_directory(root)
            except BaseException:
                drop_partial(partial)
                raise
        except OSError as error:
            raise write_error(final, error) from error
    return final


@dataclass(frozen=True)
class _Block:
    """A block that is read when it is written."""

    shape: Shape
    stored: StoredTensors

    def read(self) -> Item:
        if self.shape.dtype is None:
            return Item(self.shape, self.stored.read_object(self.shape.key))
        return Item(self.shape, self.stored.read(self.shape.key, self.shape.offset, self.shape.size))

    @property
    def bytes(self) -> int:
        return self.shape.bytes


def _write(stored: StoredTensors, partial: Path, ranks: int) -> None:
    blocks = list(_blocks(stored))
    files: dict[str, dict[str, Any]] = {}
    places: dict[MetadataIndex, Any] = {}
    for number, items in enumerate(_shared_out(blocks, ranks * FILES_PER_RANK)):
        if items:
            name = f"{SHARDS}/__{number // FILES_PER_RANK}_{number % FILES_PER_RANK}.distcp"
            files[name], its_places = write_file(partial / name, (block.read() for block in items))
            places.update(its_places)
    metadata = metadata_of(block.shape for block in blocks)
    atomic_write_bytes(partial / SHARDS / ".metadata", metadata_bytes(metadata, places))
    rest = [f"{SHARDS}/.metadata"]
    for path in stored.directory.rglob("*"):
        name = str(path.relative_to(stored.directory))
        if path.is_file() and path.suffix != ".distcp" and name not in (MANIFEST, *rest):
            atomic_write_bytes(partial / name, path.read_bytes())
            rest.append(name)
    write_manifest(partial, files | describe_files(partial, rest))


def _blocks(stored: StoredTensors) -> Iterator[_Block]:
    for name in stored.names:
        entry = stored.stored(name)
        dtype = entry.properties.dtype
        for offset, size in blocks_of(entry.size, dtype.itemsize, BLOCK_BYTES):
            yield _Block(Shape(name, tuple(offset), tuple(size), tuple(entry.size), dtype), stored)
    for name in stored.objects:
        yield _Block(Shape(name, (), (), (), None), stored)


def _shared_out(blocks: list[_Block], files: int) -> list[list[_Block]]:
    """Blocks in their order, about the same number of bytes to each file."""
    total = sum(block.bytes for block in blocks)
    shares: list[list[_Block]] = [[] for _ in range(files)]
    done = 0
    for block in blocks:
        shares[min(files - 1, done * files // max(total, 1))].append(block)
        done += block.bytes
    return shares
