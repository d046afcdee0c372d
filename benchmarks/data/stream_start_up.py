"""Start-up and random access at the size of the 7B's run: 226 shards, 2.4 T tokens, 1.545e9 samples.

The shards are sparse files: ``.bin`` as large as 2.4 T int32 tokens, ``.idx`` as large as documents of
``--document-tokens`` make it, with an honest header and last entry and holes between, which is all that opening a
shard reads. Ours starts in a process of its own: read the blend plan, check all shards against it, make the stream,
read a first batch of 512 samples. Then samples are read around the first and around the last of the run, in random
order; holes are zeros, so this times arithmetic and system calls, and no disk.

Megatron-Core's blend index is built beside it, in the same run, for ``--megatron-samples`` samples over the same 226
weights by its own C++ helper. It walks every sample, so time and size at the run's length follow in proportion.

    python benchmarks/data/stream_start_up.py --json FILE
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import struct
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from salamandra_data.atomic_write import sha256_of_file
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, build_plan
from salamandra_data.indexed import ShardManifest, TokenizerIdentity

SEQUENCE_LENGTH = 8192
SAMPLES = 3_016_817 * 512
TOKENS = 2_400_000_000_000
SHARDS, LANGUAGES = 226, 36
GLOBAL_BATCH = 512
VOCAB_SIZE, EOD = 256_000, 2
CHUNK_BYTES = 1 << 26


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--document-tokens", type=int, default=700, help="mean, decides the size of .idx")
    parser.add_argument("--reads", type=int, default=5000, help="samples to time at each end")
    parser.add_argument("--megatron-samples", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plan_file = write_sparse_shards(Path(scratch), arguments.document_tokens)
        ours = in_own_process(measure_stream, plan_file, arguments.reads)
        theirs = in_own_process(measure_blend_index, plan_file, arguments.megatron_samples)
    report = {
        "environment": {
            "date": date.today().isoformat(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "versions": {name: version(name) for name in ("megatron-core", "numpy", "torch")},
        },
        "command": f"python benchmarks/data/stream_start_up.py --reads {arguments.reads}",
        "run": {"shards": SHARDS, "languages": LANGUAGES, "tokens": TOKENS, "samples": SAMPLES},
        "sample_stream": ours,
        "megatron_core_blend_index": theirs,
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def write_sparse_shards(directory: Path, document_tokens: int) -> Path:
    """226 shards of 36 languages whose sizes span three decades; returns the blend plan."""
    model = directory / "tokenizer.model"
    model.write_bytes(b"not read by anyone here")
    tokenizer = TokenizerIdentity(sha256_of_file(model), VOCAB_SIZE, EOD)
    shares = np.geomspace(1000, 1, LANGUAGES)
    counts = np.maximum(1, np.floor(shares / shares.sum() * SHARDS)).astype(int)
    counts[0] += SHARDS - counts.sum()
    for number, (share, count) in enumerate(zip(shares / shares.sum(), counts, strict=True)):
        for shard in range(count):
            documents = int(TOKENS * share / count) // document_tokens
            tokens = documents * document_tokens
            prefix = directory / f"l{number:02d}-train-{shard:05d}"
            write_sparse(prefix, documents, document_tokens)
            chunks = -(-4 * tokens // CHUNK_BYTES)
            ShardManifest(
                language=f"l{number:02d}",
                split="train",
                documents=documents,
                tokens=tokens,
                utf8_bytes=4 * tokens,
                tokenizer=tokenizer,
                shuffle_seed=0,
                bin_bytes=4 * tokens,
                bin_sha256=(f"{number:032x}{shard:032x}",) * chunks,  # what is told apart by them must differ
                idx_sha256=f"{number:032x}{shard:032x}",
            ).save(prefix)
    plan = build_plan([directory], LanguageFactors({}))
    plan.save(directory / "blend.yaml")
    return directory / "blend.yaml"


def write_sparse(prefix: Path, documents: int, document_tokens: int) -> None:
    """Files of the right size, with a header and the last document's length and start."""
    with open(f"{prefix}.bin", "wb") as stream:
        stream.truncate(4 * documents * document_tokens)
    with open(f"{prefix}.idx", "wb") as stream:
        stream.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, documents, documents + 1))
        stream.seek(34 + 4 * (documents - 1))
        stream.write(struct.pack("<i", document_tokens))
        stream.seek(34 + 4 * documents + 8 * (documents - 1))
        stream.write(struct.pack("<q", 4 * (documents - 1) * document_tokens))
        stream.seek(34 + 12 * documents + 8 * documents)
        stream.write(struct.pack("<q", documents))


def measure_stream(plan_file: Path, reads: int) -> dict[str, Any]:
    """From the plan's file to the first batch, then samples at both ends of the run."""
    from megatron_salamandra.data import SampleStream

    memory = resident_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    stream = SampleStream(BlendPlan.load(plan_file), SEQUENCE_LENGTH, seed=1234)
    stream_wall = time.perf_counter() - wall
    for number in range(GLOBAL_BATCH):
        stream.sample(number)
    start = {"wall_s": round(time.perf_counter() - wall, 3), "cpu_s": round(time.process_time() - cpu, 3)}
    grown = resident_bytes() - memory
    descriptors = len(os.listdir("/proc/self/fd"))
    first = sample_microseconds(stream, 0, reads)
    last = sample_microseconds(stream, SAMPLES - 1_000_000, reads)
    return {
        "before_first_sample_wall_s": round(stream_wall, 3),
        "first_batch": start,
        "samples_in_batch": GLOBAL_BATCH,
        "resident_mib": round(grown / 2**20, 1),
        "index_bytes": 0,
        "file_descriptors": descriptors,
        "microseconds_per_sample_near_0": first,
        "microseconds_per_sample_near_1.5e9": last,
    }


def sample_microseconds(stream: Any, start: int, reads: int) -> float:
    """CPU time of a sample, in random order among a million; the better of three times."""
    numbers = random.Random(0).sample(range(start, start + 1_000_000), reads)
    times = []
    for _ in range(3):
        began = time.process_time()
        for number in numbers:
            stream.sample(number)
        times.append((time.process_time() - began) / reads * 1e6)
    return round(min(times), 1)


def measure_blend_index(plan_file: Path, samples: int) -> dict[str, Any]:
    """Megatron-Core's index of which dataset each sample comes from; its per-dataset indexes are not counted."""
    from megatron.core.datasets import helpers

    plan = BlendPlan.load(plan_file)
    weights = np.array([shard.tokens for source in plan.sources for shard in source.shards], dtype=np.float64)
    weights /= weights.sum()
    dataset_index = np.zeros(samples, dtype=np.int16)
    sample_index = np.zeros(samples, dtype=np.int64)
    began = time.process_time()
    helpers.build_blending_indices(dataset_index, sample_index, weights, len(weights), samples, False)
    seconds = time.process_time() - began
    return {
        "samples": samples,
        "datasets": len(weights),
        "cpu_s": round(seconds, 2),
        "ns_per_sample": round(seconds / samples * 1e9, 1),
        "bytes_per_sample": 10,
        "whole_run_cpu_s_in_proportion": round(seconds / samples * SAMPLES),
        "whole_run_gb_in_proportion": round(10 * SAMPLES / 1e9, 1),
    }


def resident_bytes() -> int:
    """What of this process is in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_own_process(measure: Any, *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result: dict[str, Any] = pool.apply(measure, arguments)
    return result


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
