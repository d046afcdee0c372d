"""The sample stream beside Megatron-Core's GPTDataset and BlendedDataset, on the same shards.

Writes synthetic shards (36 languages of very different sizes), then starts each side in a process of its own and
measures: seconds from the list of shards to the first sample, with cold and with warm caches; bytes of index
files left on disk; growth of peak memory; microseconds per sample in random order, as training tensors and
from a hot page cache; and by how many samples the share of a source is off at worst over the run's prefixes.
Times are CPU times of one process, so that a busy machine does not spoil them; the start is given on the wall
clock too.

    python benchmarks/data/stream.py
    python benchmarks/data/stream.py --languages 36 --shards 6 --documents 400000 --samples 10000000

Writes a table to the terminal, and the numbers as JSON with --json FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from own_process import Meter, environment, in_own_process

from salamandra_data.blend_plan import BlendPlan, LanguageFactors, build_plan
from salamandra_data.checksums import sha256_of_file
from salamandra_data.shards import ShardWriter, TokenizerIdentity

VOCAB_SIZE = 256_000
EOD = 2
PREFIXES = 2000  # how many prefixes of the run the shares are checked at


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--languages", type=int, default=36)
    parser.add_argument("--shards", type=int, default=2, help="per language")
    parser.add_argument("--documents", type=int, default=100_000, help="over all languages")
    parser.add_argument("--document-tokens", type=int, default=200, help="mean")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=1_000_000, help="length of the run")
    parser.add_argument("--reads", type=int, default=3000, help="samples to time")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        plan_file = write_shards(arguments, Path(scratch))
        print(f"shards written in {time.perf_counter() - started:.1f} s", file=sys.stderr)
        cache = Path(scratch) / "cache"
        rows = [
            in_own_process(measure_stream, arguments, plan_file, cache),
            in_own_process(measure_megatron, arguments, plan_file, cache)
            | {"side": "megatron.core, cold cache"},
            in_own_process(measure_megatron, arguments, plan_file, cache)
            | {"side": "megatron.core, warm cache"},
        ]
    print_table(rows)
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        report = {"environment": environment(), "settings": settings, "results": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def write_shards(arguments: argparse.Namespace, directory: Path) -> Path:
    """Write shards of 36 or so languages whose sizes span three decades, and a plan with factors 1/2, 1 and 2."""
    generator = np.random.default_rng(0)
    tokenizer_file = directory / "tokenizer.model"
    tokenizer_file.write_bytes(b"not read by anyone here")
    tokenizer = TokenizerIdentity(sha256_of_file(tokenizer_file), VOCAB_SIZE, EOD)
    sizes = np.geomspace(1000, 1, arguments.languages)
    per_shard = np.maximum(1, sizes / sizes.sum() * arguments.documents / arguments.shards).astype(int)
    for number, documents in enumerate(per_shard):
        language = f"l{number:03d}"
        for shard in range(arguments.shards):
            prefix = directory / f"{language}-train-{shard:05d}"
            with ShardWriter(prefix, language=language, split="train", tokenizer=tokenizer) as writer:
                lengths = generator.geometric(1 / arguments.document_tokens, documents) + 1
                # At least two windows each, so that Megatron-Core too can draw from every shard.
                lengths[0] += 2 * arguments.sequence_length
                for length in lengths:
                    ids = generator.integers(3, VOCAB_SIZE, length, dtype=np.int64)
                    ids[-1] = EOD
                    writer.add_document(ids, utf8_bytes=4 * int(length))
    factors = [Fraction(1, 2), Fraction(1), Fraction(2)]
    plan = build_plan(
        [directory], LanguageFactors({f"l{n:03d}": factors[n % 3] for n in range(arguments.languages)})
    )
    plan.save(directory / "blend.yaml")
    return directory / "blend.yaml"


def measure_stream(arguments: argparse.Namespace, plan_file: Path, cache: Path) -> dict[str, Any]:
    """Our side: load the plan, which checks every shard, make the stream, read."""
    from megatron_salamandra.data import SampleStream
    from megatron_salamandra.data.micro_batch import micro_batch

    meter = Meter()
    stream = SampleStream(BlendPlan.load(plan_file), arguments.sequence_length, seed=1234)
    stream.sample(0)
    start = meter.read()
    plan = BlendPlan.load(plan_file)
    shares = np.array([source.weight for source in plan.sources], dtype=np.float64)
    return {
        "side": "sample stream",
        "start": start,
        "index_bytes": 0,
        "sample_microseconds": time_reads(arguments, lambda k: micro_batch(stream.sample(k)[None])),
        "worst_share_error_samples": worst_share_error(
            prefixes_of(arguments),
            shares,
            (np.array([entry.samples for entry in stream.ledger(n)]) for n in prefixes_of(arguments)),
        ),
    }


def measure_megatron(arguments: argparse.Namespace, plan_file: Path, cache: Path) -> dict[str, Any]:
    """Their side: one GPTDataset per shard, as published blends list them, blended by the same weights."""
    import logging

    import torch.distributed
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    logging.getLogger("megatron").setLevel(logging.ERROR)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    plan = BlendPlan.load(plan_file)  # not their work, so not timed
    prefixes, weights, owners = [], [], []
    for number, source in enumerate(plan.sources):
        for shard in source.shards:
            prefixes.append(str(shard.path))
            weights.append(float(shard.tokens * source.factor))
            owners.append(number)
    meter = Meter()
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=arguments.sequence_length,
        blend=(prefixes, weights),
        split="1,0,0",
        path_to_cache=str(cache),
        tokenizer=SimpleNamespace(vocab_size=VOCAB_SIZE, eod=EOD, pad=0, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    sizes = [arguments.samples, 0, 0]
    dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]
    dataset[0]
    start = meter.read()
    drawn = np.asarray(owners)[np.asarray(dataset.dataset_index[: arguments.samples])]
    shares = np.array([source.weight for source in plan.sources], dtype=np.float64)
    return {
        "start": start,
        "index_bytes": sum(file.stat().st_size for file in cache.rglob("*.npy")),
        "sample_microseconds": time_reads(arguments, lambda k: dataset[k]),
        "worst_share_error_samples": worst_share_error(
            prefixes_of(arguments), shares, dealt(drawn, len(shares), prefixes_of(arguments))
        ),
    }


def time_reads(arguments: argparse.Namespace, read: Callable[[int], object]) -> float:
    """Return the CPU microseconds of a read in random order, the second time the same samples are read."""
    numbers = random.Random(0).sample(range(arguments.samples), min(arguments.reads, arguments.samples))
    for number in numbers:
        read(number)
    started = time.process_time()
    for number in numbers:
        read(number)
    return (time.process_time() - started) / len(numbers) * 1e6


def prefixes_of(arguments: argparse.Namespace) -> list[int]:
    """Return the lengths of the prefixes at which shares are compared, rising."""
    return sorted(random.Random(1).sample(range(arguments.samples), min(PREFIXES, arguments.samples)))


def dealt(drawn: NDArray[np.int64], sources: int, prefixes: list[int]) -> Iterator[NDArray[np.int64]]:
    """Yield how many samples of each source are in each prefix of ``drawn``."""
    counts, start = np.zeros(sources, dtype=np.int64), 0
    for end in prefixes:
        counts += np.bincount(drawn[start:end], minlength=sources)
        start = end
        yield counts


def worst_share_error(
    prefixes: list[int], shares: NDArray[np.float64], counts: Iterable[NDArray[np.int64]]
) -> float:
    """Return the largest |samples drawn - exact share| of a source over prefixes of the run."""
    exact = shares / shares.sum()
    return max(float(np.abs(count - n * exact).max()) for n, count in zip(prefixes, counts, strict=True))


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| side | start, CPU (wall) | index files | memory | per sample | worst share error |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['side']} | {row['start']['cpu_s']:.2f} s ({row['start']['wall_s']:.2f} s) "
            f"| {row['index_bytes'] / 2**20:,.0f} MiB | {row['start']['peak_mib']:,.0f} MiB "
            f"| {row['sample_microseconds']:,.0f} µs | {row['worst_share_error_samples']:.2f} samples |"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
