"""Training runs of the small model, and what they left on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rank_jobs import train, train_by_a_clock, train_on_a_full_disk, train_until_nan
from rank_pool import RankPool
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata


class TrainingRuns:
    """Trains the small model below one directory; a run's name is its run directory."""

    def __init__(self, pool: RankPool, blend: Path, root: Path) -> None:
        self.pool, self.blend, self.root = pool, blend, root

    def train(self, name: str, ranks: int, *overrides: str) -> int:
        """Train in run directory ``name``; the same name again resumes. Returns the ranks' exit code."""
        return self._run(train, name, ranks, overrides)

    def train_on_a_full_disk(self, name: str, ranks: int, *overrides: str) -> int:
        """Like :meth:`train`, but no file of tensors can be completed."""
        return self._run(train_on_a_full_disk, name, ranks, overrides)

    def train_until_nan(self, name: str, ranks: int, *overrides: str) -> int:
        """Like :meth:`train`, but the loss of step 3 is not a number."""
        return self._run(train_until_nan, name, ranks, overrides)

    def train_by_a_clock(self, name: str, ranks: int, *overrides: str) -> int:
        """Like :meth:`train`, with time as :func:`rank_jobs.train_by_a_clock` lets it pass."""
        return self._run(train_by_a_clock, name, ranks, overrides)

    def run_job(self, job: Callable[..., int], name: str, ranks: int, *overrides: str) -> int:
        """Like :meth:`train`, with another job of ``rank_jobs``."""
        return self._run(job, name, ranks, overrides)

    def _run(self, job: Callable[..., int], name: str, ranks: int, overrides: Sequence[str]) -> int:
        common = [f"data.blend={self.blend}", f"run_dir={self.root / name}"]
        codes = self.pool.run(ranks, job, [*common, *overrides])
        assert len(set(codes)) == 1, codes
        return int(codes[0])

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """Objects of the run's ``metrics.jsonl``."""
        lines = (self.root / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self, name: str) -> list[float]:
        """Loss of every step, in order."""
        return [entry["loss"] for entry in self.metrics(name)]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Objects of the run's ``events.jsonl``."""
        return [json.loads(line) for line in (self.root / name / "events.jsonl").read_text().splitlines()]

    def checkpoint(self, name: str, step: int) -> Path:
        """Directory of a checkpoint of the run."""
        return self.root / name / "checkpoints" / f"step-{step:08d}"

    def tensors(self, name: str, step: int) -> dict[str, Tensor]:
        """See :func:`tensors_of`."""
        return tensors_of(self.checkpoint(name, step))


def tensors_of(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, whole, by key: weights, master weights and moments."""
    shards = str(checkpoint / "shards")
    metadata = dcp.FileSystemReader(shards).read_metadata().state_dict_metadata
    found = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    dcp.load(found, checkpoint_id=shards, no_dist=True)
    return found
