"""Reading single tensors of a sharded checkpoint: no process group, no Megatron-Core, no GPU.

A layer of a stacked tensor is read on its own, so memory stays at one layer's tensor plus one
stored chunk whatever the size of the model or the number of ranks that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_salamandra.checkpoint import StoredTensors
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
    _tensors: StoredTensors

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
        checkpoint = cls(
            path=path,
            config=_read_config(path / CONFIG).at_step(step_of(path)),
            state=dict(read_state(path).values),
            _tensors=StoredTensors(path),
        )
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
        dtype: torch.dtype = self._tensors.stored(WEIGHTS[0].name).properties.dtype
        return dtype

    def read(self, key: str, layer: int | None = None) -> Tensor:
        """Read one tensor, or the slice of one layer of a stacked one, into CPU memory.

        Args:
            key: Megatron key, such as ``decoder.layers.mlp.linear_fc1.weight``.
            layer: index on the leading axis; None reads the whole tensor.
        Raises:
            CheckpointError: no such tensor, part of it was never saved, or a file is damaged.
        """
        return self._tensors.read(key) if layer is None else self._tensors.read_layer(key, layer)

    def huggingface_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the model under its Hugging Face name, read one layer's tensor at a time."""
        for placement in placements(self.config.model):
            yield from self.read_placement(placement).items()

    def read_placement(self, placement: Placement) -> dict[str, Tensor]:
        """The Hugging Face tensors made of one Megatron tensor (of one layer)."""
        tensor = self.read(placement.weight.name, placement.layer)
        return placement.to_huggingface(tensor, self.config.model)

    def _check_shapes(self) -> None:
        for key, expected in megatron_shapes(self.config.model).items():
            found = tuple(self._tensors.stored(key).size)
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
