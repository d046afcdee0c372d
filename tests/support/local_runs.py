"""Runs of real processes on this machine, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rank_jobs import SMALL_CONFIG

from megatron_salamandra.run_directory import MetricsLog, RunDirectory

LONG = ["training.steps=100000", "optimizer.warmup_steps=10"]


def command(blend: Path, run: Path, *overrides: str, ranks: int = 2) -> list[str]:
    return [
        *(sys.executable, "-m", "megatron_salamandra.cli", "train", str(SMALL_CONFIG), f"--ranks={ranks}"),
        *(f"data.blend={blend}", f"run_dir={run}", *overrides),
    ]


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 600  # a loaded machine is no failure
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def last_step(run: RunDirectory) -> int:
    return MetricsLog(run.metrics).read()[-1].step
