"""Time, memory and copy bandwidth of the machine at hand."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

# Written between runs so that no operand is found in the cache of the run before.
FLUSH_BYTES = 256 << 20


def median_milliseconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median time of ``run`` after two warm-up runs, cache flushed before each."""
    flush = torch.empty(FLUSH_BYTES if device.type == "cuda" else 1, dtype=torch.int8, device=device)
    for _ in range(2):
        run()
    times = []
    for _ in range(repeats):
        flush.zero_()
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            run()
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def copy_bytes_per_second(device: torch.device, repeats: int) -> float:
    """Bytes read plus bytes written per second by a copy far larger than any cache."""
    source = torch.ones((1 << 30) if device.type == "cuda" else (1 << 26), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    milliseconds = median_milliseconds(lambda: target.copy_(source), device, repeats)
    return 2 * source.numel() / (milliseconds / 1000)


def peak_extra_bytes(run: Callable[[], Any], device: torch.device) -> int | None:
    """Device memory ``run`` needed beyond what was allocated before it; None where nobody counts."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for package in ("triton", "megatron-core", "liger-kernel", "transformer-engine"):
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
