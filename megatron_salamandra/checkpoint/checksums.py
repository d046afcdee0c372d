"""Checksums of the files of tensors, made by the process that wrote them, so that training does not wait for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_salamandra.run_directory import SHARDS, describe_files


def write_and_describe(
    write: Callable[..., object], partial: Path, rank: int, /, *arguments: Any, **named: Any
) -> None:
    """Do as Megatron-Core's writer does, then note sizes and checksums of this rank's files.

    Runs in the writer's process. The files are read back, from the host's memory as a rule.

    Args:
        write: Megatron-Core's function, and what it is called with.
        partial: directory in which the save is assembled.
        rank: whose files these are.
    """
    write(*arguments, **named)
    names = [f"{SHARDS}/{path.name}" for path in sorted((partial / SHARDS).glob(f"__{rank}_*"))]
    _place(partial, rank).write_text(json.dumps(describe_files(partial, names)))


def take_description(partial: Path, rank: int) -> dict[str, dict[str, Any]]:
    """What :func:`write_and_describe` noted; the note is removed.

    Raises:
        OSError: it noted nothing, so the writer did not come to its end.
    """
    place = _place(partial, rank)
    files: dict[str, dict[str, Any]] = json.loads(place.read_text())
    place.unlink()
    return files


def _place(partial: Path, rank: int) -> Path:
    return partial / f".files-of-rank-{rank}.json"
