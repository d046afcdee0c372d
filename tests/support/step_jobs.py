"""Jobs for the rank pool that watch what the training thread does in its steps."""

from __future__ import annotations

import collections
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rank_jobs import SMALL_CONFIG

_FILE_EVENTS = ("open", "os.", "shutil.", "tempfile.")
_CALLS = ("syscr", "syscw")


def _calls() -> dict[str, int]:
    """Reads and writes that the kernel has counted of this thread."""
    lines = Path("/proc/thread-self/io").read_text().splitlines()
    counted = dict(line.split(": ") for line in lines)
    return {name: int(counted[name]) for name in _CALLS}


def files_touched_in_steps(overrides: Sequence[str], first: int, last: int) -> dict[str, Any]:
    """Train, and tell what the training thread asked of the file system from the end of one step to that of another.

    Returns:
        ``opened``: paths and other arguments of what the interpreter reported; ``calls``: reads and writes that the
        kernel counted beyond those of the counting itself; ``code``: exit code of the run.
    """
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, StepReport, Trainer, TrainerParts

    thread = threading.get_ident()
    opened: list[str] = []
    watching = False
    counts: list[dict[str, int]] = []

    def heed(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and threading.get_ident() == thread and event.startswith(_FILE_EVENTS):
            opened.append(f"{event} {arguments[:1]}")

    class Watches(Callback):
        def after_step(self, report: StepReport) -> None:
            nonlocal watching
            if report.step == first:
                counts.extend((_calls(), _calls()))
                watching = True
            if report.step == last:
                watching = False
                counts.append(_calls())

    sys.addaudithook(heed)
    parts = TrainerParts(callbacks=[Watches()])
    code = main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))
    before, after_counting, end = counts
    return {
        "code": code,
        "opened": opened,
        "calls": {
            name: (end[name] - after_counting[name]) - (after_counting[name] - before[name])
            for name in _CALLS
        },
    }


_ON_THE_HOST = ("salamandra_kernels/", "core/tensor_parallel/random.py")


def waits_for_the_device(overrides: Sequence[str], first: int, last: int) -> dict[str, Any]:
    """Train, and count where the training thread would wait for a device in the steps after ``first`` up to ``last``.

    Returns:
        ``scalars``: numbers that were read out of a tensor one by one (``item()``, ``float()``, ``if tensor``), by the
        line that read them; ``fetches``: calls of :meth:`Platform.fetch`, for each step; ``code``: exit code.
    """
    import traceback

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from megatron_salamandra.platform.host import HostPlatform
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, StepReport, Trainer, TrainerParts

    scalars: collections.Counter[str] = collections.Counter()
    fetches: dict[int, int] = collections.Counter()
    fetch = HostPlatform.fetch
    step = first

    class Counts(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                lines = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
                # A kernel of ours looks at labels, on the CPU alone; states of random numbers lie on the host anywhere.
                if not any(name in line for line in lines for name in _ON_THE_HOST):
                    scalars["; ".join(line for line in lines if "torch/" not in line)[-300:]] += 1
            return func(*args, **(kwargs or {}))

    counts = Counts()

    def counted(self: HostPlatform, values: torch.Tensor) -> list[float]:
        if counting:
            fetches[step] += 1
        return fetch(self, values)

    counting = False

    class Watches(Callback):
        def after_step(self, report: StepReport) -> None:
            nonlocal step, counting
            step = report.step + 1
            if report.step == first:
                counts.__enter__()
                counting = True
            if report.step == last:
                counts.__exit__(None, None, None)
                counting = False

    parts = TrainerParts(callbacks=[Watches()])
    HostPlatform.fetch = counted  # type: ignore[method-assign]
    try:
        code = main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))
    finally:
        HostPlatform.fetch = fetch  # type: ignore[method-assign]
    return {"code": code, "scalars": dict(scalars), "fetches": dict(fetches)}
