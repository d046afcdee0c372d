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


MOST_PROCESSES = 4
BYTES_PER_PROCESS = 3 << 30
"""What the tests of one process hold at most: eight ranks."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite among a process per core, if pytest-xdist is there; a part of it stays in one.

    ``-n`` says otherwise; tests on a GPU share it with nobody. Each process gets a row of neighbours, so that what a
    module shares is seldom made twice, and takes from another's rest when its own is done.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or hasattr(config, "workerinput") or not config.pluginmanager.hasplugin("xdist"):
        return
    if Path("/dev/nvidiactl").exists() or config.option.usepdb:
        return
    if config.option.numprocesses is None and config.option.dist == "no":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        cores = len(os.sched_getaffinity(0))
        processes = min(cores, MOST_PROCESSES, memory // BYTES_PER_PROCESS)
        if processes > 1:
            config.option.numprocesses, config.option.dist = processes, "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; torch is imported only if such tests were collected."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """What a test calls in this process may set variables, such as those of a world of ranks; the next finds none."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


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
