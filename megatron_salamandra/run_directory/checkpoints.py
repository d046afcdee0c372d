"""Names and contents of checkpoint directories.

::

    RUN/checkpoints/
      step-00000020/
        shards/          tensors in Megatron-Core's torch_dist format, with the optimizer
        config.yaml      the resolved configuration
        state.json       step, consumed samples, stream, ledger, layout, versions
        tokenizer.model  the SentencePiece model of the data
        manifest.json    every other file with its size and checksum; written last
      .partial-*         saves that are running or died, see partial.py

A directory counts only if it carries its final name and a manifest, and it gets the name when
everything in it is on disk. So "latest" is derived, never stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from megatron_salamandra.run_directory.checkpoint_state import CheckpointError, CheckpointState
from megatron_salamandra.run_directory.layout import CONFIG, RunDirectory

MANIFEST = "manifest.json"
STATE = "state.json"
TOKENIZER = "tokenizer.model"
SHARDS = "shards"

_STEP = re.compile(r"step-(\d{8,})")
PARTIAL = ".partial-"


def step_directory(root: Path, step: int) -> Path:
    """Final directory of the checkpoint of ``step`` below ``root`` (``RUN/checkpoints``)."""
    return root / f"step-{step:08d}"


def step_of(directory: Path) -> int:
    """The step in a checkpoint directory's name.

    Raises:
        CheckpointError: the name is not one of a checkpoint.
    """
    match = _STEP.fullmatch(directory.name)
    if match is None:
        raise CheckpointError(f"{directory} is not a checkpoint directory: its name is not step-NNNNNNNN")
    return int(match.group(1))


def complete_checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints below ``root``, oldest first; empty if there is no such directory."""
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if _STEP.fullmatch(path.name) and (path / MANIFEST).is_file()]
    return sorted(found, key=step_of)


def latest_checkpoint(root: Path) -> Path | None:
    """The complete checkpoint of the highest step below ``root``, or None."""
    checkpoints = complete_checkpoints(root)
    return checkpoints[-1] if checkpoints else None


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint meant by ``path``: itself, or the latest below a checkpoints or run directory.

    Raises:
        CheckpointError: there is none, or it is incomplete.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such directory; give a run, its checkpoints/ or one step-NNNNNNNN")
    if _STEP.fullmatch(path.name):
        if not (path / MANIFEST).is_file():
            raise CheckpointError(
                f"{path} has no {MANIFEST}: it was never completed; use an earlier checkpoint"
            )
        return path
    for root in (path, RunDirectory(path).checkpoints):
        latest = latest_checkpoint(root)
        if latest is not None:
            return latest
    raise CheckpointError(f"{path} holds no complete checkpoint (step-NNNNNNNN with a {MANIFEST})")


def read_state(directory: Path) -> CheckpointState:
    """``state.json`` of a checkpoint.

    Raises:
        CheckpointError: it is missing or not JSON.
    """
    path = directory / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; use another checkpoint") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} does not hold an object; use another checkpoint")
    return CheckpointState(state, path)


def check_same_model(directory: Path, model: Mapping[str, Any]) -> None:
    """Make sure that the weights of a checkpoint mean the same in another model.

    Args:
        model: what both must agree on, as the ``model`` section of the checkpoint's configuration has it.
    Raises:
        CheckpointError: they do not, or the checkpoint's configuration cannot be read.
    """
    path = directory / CONFIG
    try:
        saved: Any = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        differing = [key for key, value in model.items() if saved.get(key) != value]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}; use another checkpoint") from error
    for key in differing:
        raise CheckpointError(
            f"{directory} is a checkpoint of another model: model.{key} is {saved.get(key)} there and "
            f"{model[key]} in this run\n  use another run_dir, or the configuration the checkpoint was made with"
        )
