"""SLURM laboratories, one with each common way to track processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_lab import Lab, missing


@pytest.fixture(scope="session", params=["cgroup", "pgid"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts; their processes are tracked as on most sites, and in the other common way."""
    if why := missing():
        pytest.skip(why)
    if request.param == "cgroup" and not os.access("/sys/fs/cgroup/freezer", os.W_OK):
        pytest.skip("proctrack/cgroup needs a writable cgroup v1 freezer")
    # Not below pytest's directory: munge wants every directory above its socket open to all.
    directory = Path(tempfile.mkdtemp(prefix=f"lab-{request.param}-"))
    made = Lab(directory, 3, request.param)
    try:
        made.call("up")
        yield made
    finally:
        made.call("down")
        shutil.rmtree(directory, ignore_errors=True)
