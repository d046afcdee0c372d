"""Making a checkpoint of what the ranks have written: everything that is not tensors, the manifest, the name.

Runs on rank 0, in a process of its own, when the tensors of all ranks are on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import pickle
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.core import CheckpointingConfig
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta

from megatron_salamandra.checkpoint.disk import Disk, Stage
from megatron_salamandra.checkpoint.tensor_files import Written
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes, sync_directory
from megatron_salamandra.run_directory import (
    CONFIG,
    MANIFEST,
    SHARDS,
    STATE,
    TOKENIZER,
    CheckpointState,
    describe_files,
    make_partial,
    publish_partial,
    set_aside,
    write_manifest,
)


@dataclass(frozen=True)
class Contents:
    """What rank 0 adds to the tensors.

    Attributes:
        common: what is no tensor, for Megatron-Core's ``common.pt``.
        metadata: of all tensors, without their places.
        config_yaml: the resolved configuration.
        state: for ``state.json``.
        tokenizer: the SentencePiece model.
    """

    common: dict[str, Any]
    metadata: Metadata
    config_yaml: str
    state: CheckpointState
    tokenizer: bytes


def open_directory(partial: Path, state_bytes: int, disk: Disk) -> None:
    """Clear away earlier saves and make the directory, if the save fits on the disk.

    Raises:
        SaveError: it does not, or the disk refuses.
    """

    def make() -> None:
        make_partial(partial)
        free = shutil.disk_usage(partial).free
        # After what is free: what other ranks write in between may count twice, but not be missed.
        left = state_bytes - _bytes_below(partial)
        if free < left:
            raise OSError(
                errno.ENOSPC,
                f"the checkpoint needs {left / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free",
            )

    disk.attempt(Stage.DIRECTORY, partial, make)


def complete(
    partial: Path,
    final: Path,
    contents: Contents,
    written: Sequence[Written],
    disk: Disk,
    check_owner: Callable[[], None],
) -> int:
    """Write the rest, then give the directory its name; returns the checkpoint's size in bytes.

    Args:
        written: what each rank has written.
        check_owner: raises if the run directory is another run's by now.
    Raises:
        SaveError: the disk refuses, or what a rank has written is not there.
    """
    tensors = {name: entry for rank in written for name, entry in rank.files.items()}
    places = {index: place for rank in written for index, place in rank.places}
    common = io.BytesIO()
    torch.save(contents.common, common)
    rest = {
        f"{SHARDS}/.metadata": (Stage.METADATA, metadata_bytes(contents.metadata, places)),
        f"{SHARDS}/common.pt": (Stage.METADATA, common.getvalue()),
        f"{SHARDS}/metadata.json": (
            Stage.METADATA,
            json.dumps(asdict(CheckpointingConfig("torch_dist", 1))).encode(),
        ),
        CONFIG: (Stage.STATE, contents.config_yaml.encode()),
        STATE: (Stage.STATE, json.dumps(contents.state.values, indent=1).encode()),
        TOKENIZER: (Stage.STATE, contents.tokenizer),
    }
    for name, (stage, text) in rest.items():
        _write(disk, stage, partial / name, text)

    def manifest() -> int:
        files = tensors | describe_files(partial, rest)
        for name, entry in tensors.items():
            size = (partial / name).stat().st_size
            if size != entry["bytes"]:
                raise OSError(5, f"{name} has {size} bytes instead of {entry['bytes']}")
        sync_directory(partial / SHARDS)
        write_manifest(partial, files)
        return sum(int(entry["bytes"]) for entry in files.values())

    size = disk.attempt(Stage.MANIFEST, partial / MANIFEST, manifest)

    def publish() -> None:
        check_owner()
        if partial.exists():  # else an earlier attempt got as far as that
            if final.exists():  # somebody's incomplete copy, or one that was not intact when this run began
                set_aside(final)
            publish_partial(partial, final)
        sync_directory(final.parent)

    disk.attempt(Stage.PUBLISH, final, publish)
    return size


def _bytes_below(directory: Path) -> int:
    """Size of what ranks have written of a save by now."""
    size = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def metadata_bytes(metadata: Metadata, places: Mapping[MetadataIndex, Any]) -> bytes:
    """Contents of ``.metadata``: what the tensors are, and where their blocks lie."""
    return pickle.dumps(replace(metadata, storage_data=dict(places), storage_meta=StorageMeta()))


def _write(disk: Disk, stage: Stage, path: Path, text: bytes) -> None:
    disk.attempt(stage, path, lambda: atomic_write_bytes(path, text))
