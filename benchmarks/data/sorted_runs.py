"""What a document costs between the passes of tokenization, by the number of runs that hold it.

10,000 documents of 1 kB are written as many runs of equal size, and read as one key range, as the second pass does;
then the runs are merged until 256 are left, and read again. CPU time in microseconds per document, best of five for
reading. Last, runs of the usual size are merged into one, for the rate of merging: CPU time and memory.

    python benchmarks/data/sorted_runs.py
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import numpy as np

from salamandra_data.tokenization.document_hash import KEY_RANGE, shuffle_keys
from salamandra_data.tokenization.first_pass import MOST_RUNS
from salamandra_data.tokenization.range_reader import RangeReader
from salamandra_data.tokenization.run_file import Run, label_of
from salamandra_data.tokenization.sorted_runs import RUN_BYTES, CollectedDocuments, RunWriter

P = ParamSpec("P")
GROUP = ("ca", "train")
TEXT, LABEL = b"x" * 1000, label_of("source", "licence")
DOCUMENTS = 10_000
LARGE_DOCUMENTS = 1_000_000


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # to read thousands of runs unmerged
    print(f"{'runs':>6} {'read':>8} {'merge':>8} {'read then':>10}   us of CPU per document")
    for count in (1, 100, 1000, 5000):
        with tempfile.TemporaryDirectory() as directory:
            writer, runs = written(Path(directory), count)
            before = min(cpu_seconds(read, runs) for _ in range(5))
            merging = cpu_seconds(writer.finish, MOST_RUNS, go_on)
            after = min(cpu_seconds(read, runs) for _ in range(5))
        row = [seconds / DOCUMENTS * 1e6 for seconds in (before, merging, after)]
        print(f"{count:>6} {row[0]:>8.1f} {row[1]:>8.1f} {row[2]:>10.1f}")
    with tempfile.TemporaryDirectory() as directory:
        writer = RunWriter(Path(directory), "run", RUN_BYTES)
        for first in range(1, LARGE_DOCUMENTS, 1000):
            writer.add(GROUP, held(first, 1000))
        count = len(writer.finish(10**9, go_on))
        seconds = cpu_seconds(writer.finish, 1, go_on)
    print(
        f"{count} runs of {RUN_BYTES >> 20} MiB into one: "
        f"{seconds / LARGE_DOCUMENTS * 1e6:.1f} us of CPU per document, "
        f"{LARGE_DOCUMENTS * len(TEXT) / 1e6 / seconds:.0f} MB per CPU-second, "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )


def held(first_line: int, count: int) -> CollectedDocuments:
    lines = np.arange(first_line, first_line + count, dtype=np.uint64)
    return CollectedDocuments(
        file=0,
        keys=shuffle_keys(0, 0, lines),
        lines=lines,
        records=(TEXT + LABEL) * count,
        text_bytes=np.full(count, len(TEXT), dtype=np.uint64),
        label_bytes=np.full(count, len(LABEL), dtype=np.uint64),
        fast=np.ones(count, dtype=bool),
    )


def written(directory: Path, count: int) -> tuple[RunWriter, list[Run]]:
    writer = RunWriter(directory, "run", run_bytes=1)
    for number in range(count):
        writer.add(GROUP, held(1 + number * DOCUMENTS // count, DOCUMENTS // count))
    return writer, writer.finish(count, go_on)


def read(runs: list[Run]) -> None:
    with RangeReader(runs, GROUP, [0, KEY_RANGE]) as reader:
        assert len(reader.part(0).texts) == DOCUMENTS


def go_on() -> None:
    """Merge to the end."""


def cpu_seconds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    began = time.process_time()
    work(*args, **kwargs)
    return time.process_time() - began


if __name__ == "__main__":
    main()
