"""Settings of the whole suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

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
