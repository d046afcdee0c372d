"""What a device does: matrix products, copies in its memory, sums over the devices of the node.

Runs in processes of its own, one for each GPU, or one for a host without: a driver that hangs, hangs one of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from megatron_salamandra.node_check.result import Check, State

_GPU_MATRIX = 8192
_CPU_MATRIX = 1024
_GPU_COPY_BYTES = 1 << 30
_CPU_COPY_BYTES = 1 << 26
_REDUCE_BYTES = 1 << 28
_MEASURE_SECONDS = 1.0
_LEAST_TIMES = 5


def probe_gpu(index: int, gpus: int, port: int) -> Iterator[Check]:
    """Checks of one GPU, each yielded when it is done.

    Args:
        index: of this one among the ``gpus`` that are probed at the same time, each in its process.
        port: at which they meet on this host.
    """
    import torch

    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    left = torch.randn(_GPU_MATRIX, _GPU_MATRIX, device=device, dtype=torch.bfloat16)
    right = torch.eye(_GPU_MATRIX, device=device, dtype=torch.bfloat16)
    product = left @ right
    if not torch.equal(product, left):
        yield Check("matmul", State.FAILED, f"GPU {index}: a product with the unit matrix is wrong")
        return
    rate = _per_second(lambda: torch.matmul(left, left, out=product), torch.cuda.synchronize)
    teraflops = 2 * _GPU_MATRIX**3 * rate / 1e12
    yield Check(
        "matmul",
        State.OK,
        f"GPU {index}: {teraflops:.0f} TFLOP/s in bf16",
        {"matmul_tflops": (teraflops,)},
    )
    source = torch.ones(_GPU_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    rate = _per_second(lambda: target.copy_(source), torch.cuda.synchronize)
    # Read and written.
    gigabytes = 2 * _GPU_COPY_BYTES * rate / 1e9
    yield Check(
        "copy", State.OK, f"GPU {index}: {gigabytes:.0f} GB/s in its memory", {"copy_gb_per_s": (gigabytes,)}
    )
    if gpus > 1:
        yield _all_reduce(index, gpus, port)


def _all_reduce(index: int, gpus: int, port: int) -> Check:
    import datetime

    import torch
    import torch.distributed as dist

    device = torch.device("cuda", index)
    dist.init_process_group(
        "nccl",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=index,
        world_size=gpus,
        timeout=datetime.timedelta(seconds=20),
        device_id=device,
    )
    try:
        values = torch.ones(_REDUCE_BYTES // 4, device=device)
        dist.all_reduce(values)
        if not bool((values == gpus).all()):
            return Check("all_reduce", State.FAILED, f"GPU {index}: the sum over {gpus} GPUs is wrong")
        # The same number of times on all, or some would wait for others.
        times = 20
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            dist.all_reduce(values)
        torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) / times
        # Bus bandwidth, as nccl-tests defines it.
        gigabytes = _REDUCE_BYTES / seconds * 2 * (gpus - 1) / gpus / 1e9
        return Check(
            "all_reduce",
            State.OK,
            f"GPU {index}: {gigabytes:.0f} GB/s between {gpus} GPUs",
            {"all_reduce_gb_per_s": (gigabytes,)},
        )
    finally:
        dist.destroy_process_group()


def probe_host() -> Iterator[Check]:
    """Checks of a host without GPUs: matrix products in fp32, and copies in memory."""
    import numpy as np

    left = np.random.default_rng(0).standard_normal((_CPU_MATRIX, _CPU_MATRIX), dtype=np.float32)
    product = left @ np.eye(_CPU_MATRIX, dtype=np.float32)
    if not np.allclose(product, left):
        yield Check("matmul", State.FAILED, "a product with the unit matrix is wrong")
        return
    rate = _per_second(lambda: np.matmul(left, left, out=product))
    teraflops = 2 * _CPU_MATRIX**3 * rate / 1e12
    threads = len(os.sched_getaffinity(0))
    yield Check(
        "matmul",
        State.OK,
        f"{1000 * teraflops:.0f} GFLOP/s in fp32 on {threads} CPUs",
        {"matmul_tflops": (teraflops,)},
    )
    source = np.ones(_CPU_COPY_BYTES // 4, dtype=np.float32)
    target = np.empty_like(source)
    rate = _per_second(lambda: np.copyto(target, source))
    gigabytes = 2 * _CPU_COPY_BYTES * rate / 1e9
    yield Check("copy", State.OK, f"{gigabytes:.1f} GB/s in memory", {"copy_gb_per_s": (gigabytes,)})


def _per_second(work: Callable[[], object], finish: Callable[[], object] = lambda: None) -> float:
    """How often a second, by the fastest of several times: what disturbs a measurement makes it slower."""
    work()
    finish()
    best, number = float("inf"), 0
    end = time.perf_counter() + _MEASURE_SECONDS
    while number < _LEAST_TIMES or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        finish()
        best = min(best, time.perf_counter() - started)
        number += 1
    return 1.0 / best
