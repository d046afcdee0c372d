"""Start-up and random access at the size of the 7B's run: 226 shards, 2.4 T tokens, 1.545e9 samples.

The shards are sparse files with an honest header and last index entry, which is all that opening a shard reads
(``sparse_shards.py``). Ours does what training does, in a process of its own for each data-parallel size: read the
blend plan, check all shards against it, start the step loader, take the rank's first batch as tensors, then some more
steps. Peak memory is the most that the process held above what its imports left. Then the same steps are loaded again,
for the loader's CPU time with a warm page cache, and samples are read in random order around the first and around the
last of the run; holes are zeros, so this times arithmetic and system calls, no disk.

Megatron-Core builds its GPTDatasets and BlendedDataset in the same run, over the same 226 shards with complete indexes
at scaled-down sizes: the same epochs, fewer documents and samples. Two scales tell what grows with the run; the whole
run is that slope times its size. Its blend index, most of it, is also timed alone.

    python benchmarks/data/stream_start_up.py --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from own_process import Meter, environment, in_own_process, open_descriptors
from sparse_shards import GLOBAL_BATCH, LANGUAGES, SAMPLES, SEQUENCE_LENGTH, SHARDS, TOKENS, write_shards
from stream_start_up_peer import measure_blend_index, measure_build

from salamandra_data.blend_plan import BlendPlan

TIMED_SAMPLES = 5120  # ten steps of one rank


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reads", type=int, default=5000, help="samples to time at each end")
    parser.add_argument("--data-parallel", type=int, nargs="+", default=[1, 16, 128], help="sizes to measure")
    parser.add_argument(
        "--scales", type=int, nargs=2, default=[1000, 200], help="parts of the run that megatron builds"
    )
    parser.add_argument("--blend-samples", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole = write_shards(Path(scratch) / "whole")
        starts = [in_own_process(measure_start, whole, size) for size in arguments.data_parallel]
        access = in_own_process(measure_access, whole, arguments.reads)
        builds = [compare_at(scale, Path(scratch) / str(scale)) for scale in arguments.scales]
        blend_index = in_own_process(measure_blend_index, whole, arguments.blend_samples)
    report = {
        "environment": environment(),
        "command": "python benchmarks/data/stream_start_up.py",
        "run": {"shards": SHARDS, "languages": LANGUAGES, "tokens": TOKENS, "samples": SAMPLES},
        "sample_stream": {"index_bytes": 0, "starts": starts, "microseconds_per_sample": access},
        "scaled_down": builds,
        "megatron_core_whole_run_in_proportion": in_proportion(builds),
        "megatron_core_blend_index": blend_index,
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def measure_start(plan_file: Path, ranks: int) -> dict[str, Any]:
    """From the plan's file to the first step's tensors of one of ``ranks`` data-parallel ranks, and some steps on."""
    from megatron_salamandra.data import SampleStream, StepLoader
    from megatron_salamandra.timeline import Timeline

    def loader() -> StepLoader:
        return StepLoader(
            stream,
            timeline=timeline,
            micro_batch_size=1,
            data_parallel_rank=0,
            data_parallel_size=ranks,
        )

    samples = GLOBAL_BATCH // ranks
    steps = TIMED_SAMPLES // samples
    descriptors = open_descriptors()
    timeline = Timeline.of_one_phase(
        "main", steps=steps + 3, batch_size=GLOBAL_BATCH, sequence_length=SEQUENCE_LENGTH
    )
    meter = Meter()
    stream = SampleStream(BlendPlan.load(plan_file), SEQUENCE_LENGTH, seed=1234)
    checked = meter.read()
    with loader() as first:
        batches = first.next_step()
        first_batch = meter.read()
        for _ in range(steps):
            batches = first.next_step()
        peak = meter.read()["peak_mib"]
    with loader() as again:
        batches = again.next_step()
        began = time.process_time()
        for _ in range(steps):
            batches = again.next_step()
        seconds = time.process_time() - began
    return {
        "data_parallel_size": ranks,
        "samples_of_rank": len(batches),
        "batch_mib": round(len(batches) * (SEQUENCE_LENGTH + 1) * 8 / 2**20, 1),
        "shards_checked": checked,
        "first_batch": first_batch,
        "peak_mib_reading_ahead": peak,
        "loader_cpu_microseconds_per_sample": round(seconds / steps / samples * 1e6, 1),
        "file_descriptors": open_descriptors() - descriptors,
    }


def measure_access(plan_file: Path, reads: int) -> dict[str, float]:
    """CPU time of a sample at both ends of the run."""
    from megatron_salamandra.data import SampleStream

    stream = SampleStream(BlendPlan.load(plan_file), SEQUENCE_LENGTH, seed=1234)
    return {
        "near_0": sample_microseconds(stream, 0, reads),
        "near_1.5e9": sample_microseconds(stream, SAMPLES - 1_000_000, reads),
    }


def sample_microseconds(stream: Any, start: int, reads: int) -> float:
    """CPU time of a sample, in random order among a million; the best of three times."""
    numbers = random.Random(0).sample(range(start, start + 1_000_000), reads)
    times = []
    for _ in range(3):
        began = time.process_time()
        for number in numbers:
            stream.sample(number)
        times.append((time.process_time() - began) / reads * 1e6)
    return round(min(times), 1)


def compare_at(scale: int, directory: Path) -> dict[str, Any]:
    """Both sides over the same shards, 1 / ``scale`` of the run."""
    plan_file, cache = write_shards(directory, scale=scale, whole_index=True), directory / "cache"
    return {
        "scale": scale,
        "tokens": TOKENS // scale,
        "sample_stream": in_own_process(measure_start, plan_file, 1),
        "megatron_core_cold_cache": in_own_process(measure_build, plan_file, scale, cache),
        "megatron_core_warm_cache": in_own_process(measure_build, plan_file, scale, cache),
    }


def in_proportion(builds: list[dict[str, Any]]) -> dict[str, float]:
    """What a cold build of the whole run takes, if it goes on growing as it does between the two scales."""
    less, more = sorted(
        (build["megatron_core_cold_cache"] for build in builds), key=lambda build: build["samples"]
    )
    times = (SAMPLES - more["samples"]) / (more["samples"] - less["samples"])

    def extended(small: float, large: float) -> float:
        return large + (large - small) * times

    return {
        "cpu_s": round(extended(less["first_sample"]["cpu_s"], more["first_sample"]["cpu_s"])),
        "index_gb": round(extended(less["index_files"]["bytes"], more["index_files"]["bytes"]) / 1e9, 1),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
