"""A JSON file of measurements that is whole after every row, so that a run cut short keeps what it has."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("triton", "megatron-core", "liger-kernel", "transformer-engine", "apex")


class ResultFile:
    """Facts about the run, and its rows."""

    def __init__(self, path: Path | None, **facts: Any) -> None:
        """``path``: where to write; None keeps everything in memory."""
        self.path, self.facts, self.rows = path, facts, list[dict[str, Any]]()

    def begin(self, names: dict[str, Any]) -> None:
        """Write the row that is about to be measured, as an error: true if nobody comes back to it."""
        self.rows.append(names | {"error": "the process ended during this measurement"})
        self.write()

    def finish(self, row: dict[str, Any]) -> None:
        """Put the result in the place of the row that was begun."""
        self.rows[-1] = row
        self.write()

    def resume(self) -> None:
        """Take the rows that an earlier process wrote."""
        if self.path is not None and self.path.exists():
            self.rows = json.loads(self.path.read_text())["results"]

    def write(self) -> None:
        """Replace the file on disk in one step."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("w") as file:
            file.write(json.dumps(self.facts | {"results": self.rows}, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to judge the numbers: device, date, versions."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": name or platform.machine(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions,
    }
