"""Measuring in a process of its own, where nothing that the other side imported, cached or allocated shows."""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_own_process(measure: Callable[..., Result], *arguments: Any) -> Result:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


class Meter:
    """Seconds, CPU seconds and peak memory since it was made.

    Memory is the highest resident memory since then (Linux sets its high-water mark back on request), less what was
    resident then; mapped files that were touched count.
    """

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._bytes = _status_bytes("VmRSS")
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(time.process_time() - self._cpu, 3),
            "peak_mib": round((_status_bytes("VmHWM") - self._bytes) / 2**20, 1),
        }


def _status_bytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def environment(packages: Sequence[str] = ("megatron-core", "numpy", "torch")) -> dict[str, Any]:
    """What a reader of the numbers must know of the machine and the versions."""
    return {
        "date": date.today().isoformat(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in packages},
    }
