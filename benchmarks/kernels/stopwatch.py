"""Time, copy bandwidth and memory of the device at hand.

A kernel of 10 microseconds is launched by 50 microseconds of Python. To time the device and not the host, every
timed run is queued behind a pause of the device that is longer than the host needs to launch it: when the first
event is reached, all the work up to the second one is waiting. The same holds for the copy that everything is
compared with. Before each run its inputs are restored and the L2 cache is overwritten, outside the timed part.

Work that waits for the device in its middle (``.item()``) cannot be queued ahead; its time contains the launches
that follow, as it would in training, and it is marked ``host_bound``.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

# Written between runs so that no operand is found in the cache of the run before.
FLUSH_BYTES = 256 << 20
COPY_BYTES = 1 << 30
WARM_UPS = 3
FEWEST_REPEATS = 5
# No GPU's clock is faster, so the pause is at least as long as asked for.
CYCLES_PER_MILLISECOND = 2_000_000
SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS = 0.2, 10.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much to repeat one measurement."""

    repeats: int = 50
    seconds: float = 0.3
    """After so much time of its own a measurement stops repeating, but not before ``FEWEST_REPEATS``."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The median of repeated runs."""

    milliseconds: float
    host_bound: bool
    """The device waited for the host in most runs, so the time is the host's as well."""


def _nothing() -> None:
    pass


def time_of(
    run: Callable[[], Any], device: torch.device, limits: Limits, *, prepare: Callable[[], None] = _nothing
) -> Timing:
    """Median time of ``run``; ``prepare`` restores what it overwrites, untimed."""
    return (_time_on_cuda if device.type == "cuda" else _time_on_host)(run, limits, prepare)


def _repeats(limits: Limits, seconds_of_one: float) -> int:
    return min(limits.repeats, max(FEWEST_REPEATS, int(limits.seconds / max(seconds_of_one, 1e-9))))


def _time_on_host(run: Callable[[], Any], limits: Limits, prepare: Callable[[], None]) -> Timing:
    prepare()
    began = time.perf_counter()
    run()
    times = []
    for _ in range(_repeats(limits, time.perf_counter() - began)):
        prepare()
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1000)
    return Timing(statistics.median(times), host_bound=False)


def _time_on_cuda(run: Callable[[], Any], limits: Limits, prepare: Callable[[], None]) -> Timing:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    launched = finished = 0.0
    for _ in range(WARM_UPS):
        prepare()
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        launched = time.perf_counter() - began
        torch.cuda.synchronize()
        finished = time.perf_counter() - began
    pause = min(max(2000 * launched, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS)
    on_time: list[float] = []
    late: list[float] = []
    for _ in range(_repeats(limits, finished)):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        prepare()
        flush.zero_()
        # torch offers no public way to keep a stream busy; its own tests use this one.
        torch.cuda._sleep(int(pause * CYCLES_PER_MILLISECOND))
        start.record()
        run()
        end.record()
        missed = start.query()  # the pause was over before everything was queued
        end.synchronize()
        (late if missed else on_time).append(start.elapsed_time(end))
        if missed:
            pause = min(2 * pause, LONGEST_PAUSE_MS)
    host_bound = len(on_time) < len(late)
    return Timing(statistics.median(late if host_bound else on_time), host_bound)


def copy_bytes_per_second(device: torch.device, limits: Limits) -> float:
    """Bytes read plus bytes written per second by a copy far larger than any cache."""
    size = COPY_BYTES if device.type == "cuda" else 1 << 24
    source = torch.ones(size, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    if device.type == "cuda":
        # An idle device needs a moment to raise its clocks.
        began = time.perf_counter()
        while time.perf_counter() - began < 0.5:
            target.copy_(source)
            torch.cuda.synchronize()
    timing = time_of(lambda: target.copy_(source), device, limits)
    return 2 * size / (timing.milliseconds / 1000)


def peak_extra_bytes(
    run: Callable[[], Any], device: torch.device, *, prepare: Callable[[], None] = _nothing
) -> int | None:
    """Device memory ``run`` needed beyond what was allocated before it; None where nobody counts."""
    if device.type != "cuda":
        return None
    prepare()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
