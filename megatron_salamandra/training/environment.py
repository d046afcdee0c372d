"""``environment.json``: where and with what a run was started."""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron_salamandra import __version__
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.source_revision import source_revision
from megatron_salamandra.parallel import ProcessGrid
from megatron_salamandra.platform import Platform

PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "triton", "numpy", "sentencepiece")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """Versions of the packages a result depends on, None where one is not installed; ours included."""
    return {"megatron-salamandra": __version__, **{name: _version(name) for name in PACKAGES}}


def record_environment(path: Path, grid: ProcessGrid, platform: Platform) -> None:
    """Write ``environment.json`` from rank 0; collective, because it lists every rank's host."""
    hosts: list[Any] = [None] * grid.world_size
    dist.all_gather_object(hosts, socket.gethostname())
    if grid.rank != 0:
        return
    scheduler = {key: os.environ[key] for key in sorted(os.environ) if key.startswith("SLURM_JOB_")}
    contents = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_revision": source_revision(),
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "platform": platform.description(),
        "layout": grid.describe(),
        "ranks": grid.world_size,
        "hosts": sorted(set(hosts)),
        "slurm": scheduler,
        "command": sys.argv,
    }
    atomic_write_bytes(path, json.dumps(contents, indent=1).encode())
