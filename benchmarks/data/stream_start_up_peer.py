"""Megatron-Core's side of ``stream_start_up.py``: its datasets, built over scaled-down shards, and its blend index."""

from __future__ import annotations

import logging
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from own_process import Meter, open_descriptors
from sparse_shards import EOD, SAMPLES, SEQUENCE_LENGTH, VOCAB_SIZE

from salamandra_data.blend_plan import BlendPlan


def measure_build(plan_file: Path, scale: int, cache: Path) -> dict[str, Any]:
    """A GPTDataset per shard and the BlendedDataset over them, until the first sample is in memory.

    Not a batch: pages that a map fills from holes would cost it more than those of real files.
    """
    import torch.distributed
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    logging.getLogger("megatron").setLevel(logging.ERROR)
    # With a warm cache it holds six descriptors for each of the 226 shards, more than many systems allow at first.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    shards = [shard for source in BlendPlan.load(plan_file).sources for shard in source.shards]
    descriptors = open_descriptors()
    meter = Meter()
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=SEQUENCE_LENGTH,
        blend=([str(shard.path) for shard in shards], [float(shard.tokens) for shard in shards]),
        split="1,0,0",
        path_to_cache=str(cache),
        tokenizer=SimpleNamespace(vocab_size=VOCAB_SIZE, eod=EOD, pad=0, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    sizes = [SAMPLES // scale, 0, 0]
    dataset = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]
    dataset[0]
    return {
        "samples": SAMPLES // scale,
        "first_sample": meter.read(),
        "index_files": {
            "files": sum(1 for _ in cache.rglob("*.npy")),
            "bytes": sum(path.stat().st_size for path in cache.rglob("*.npy")),
        },
        "file_descriptors": open_descriptors() - descriptors,
    }


def measure_blend_index(plan_file: Path, samples: int) -> dict[str, Any]:
    """The part of the build that grows with the samples of the run alone: which dataset each sample comes from."""
    from megatron.core.datasets import helpers

    shards = [shard for source in BlendPlan.load(plan_file).sources for shard in source.shards]
    weights = np.array([shard.tokens for shard in shards], dtype=np.float64)
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
