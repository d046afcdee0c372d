"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from rank_pool import RankPool
from synthetic_blend import write_blend
from training_runs import TrainingRuns

# Tests start several ranks at once; one thread each, or they fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shared machines stall now and then: a slow example is no failure.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; torch is imported only if such tests were collected."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def rank_pool() -> Iterator[RankPool]:
    """Processes that stand for ranks, shared by all tests that need some."""
    pool = RankPool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def blend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``blend.yaml`` over small shards of three languages."""
    return write_blend(tmp_path_factory.mktemp("blend"))


@pytest.fixture(scope="session")
def runs(rank_pool: RankPool, blend: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRuns:
    """Trains the small model; runs are shared by the session, so names must be unique to a test."""
    return TrainingRuns(rank_pool, blend, tmp_path_factory.mktemp("runs"))
