"""CUDA devices, one per rank, over NCCL."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megatron_salamandra.platform.base import Platform, PlatformError

PEAK_DENSE_BF16_FLOPS = {
    # NVIDIA data sheets, dense (no sparsity), tensor cores. Longest matching name wins.
    "A100": 312e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "GB200": 2500e12,
}


_RECORDED_COLLECTIVES = 2000
"""Of each rank, in a ring: a few steps of a deep model; a few hundred bytes each."""


class CudaPlatform(Platform):
    """One CUDA device for each rank of a node, chosen by the local rank."""

    name = "cuda"
    backend = "nccl"

    def __init__(self) -> None:
        self._device: torch.device | None = None
        self._copies: torch.cuda.Stream | None = None

    def start(self, local_rank: int) -> None:
        count = torch.cuda.device_count()
        if count == 1 and os.environ.get("CUDA_VISIBLE_DEVICES"):
            # The scheduler bound one device to each task; NCCL refuses if two share it after all.
            local_rank = 0
        if local_rank >= count:
            raise PlatformError(
                f"local rank {local_rank} has no device: this node shows {count} CUDA device(s)\n"
                "  start at most one rank per device (NCCL refuses two ranks on one), or platform=host"
            )
        self._device = torch.device("cuda", local_rank)
        torch.cuda.set_device(self._device)
        if "TRITON_CACHE_DIR" not in os.environ:
            os.environ["TRITON_CACHE_DIR"] = str(kernel_cache())

    def stop(self) -> None:
        self._device = self._copies = None

    @property
    def device(self) -> torch.device:
        if self._device is None:
            raise RuntimeError("CudaPlatform.start() was not called")
        return self._device

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def fetch(self, values: torch.Tensor) -> list[float]:
        return [float(value) for value in values.tolist()]

    def staging(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def begin_copy(self, staged: torch.Tensor) -> Callable[[], torch.Tensor]:
        if self._copies is None:
            self._copies = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copies):
            copy = staged.to(self.device, non_blocking=True)
            done = self._copies.record_event()

        def arrived() -> torch.Tensor:
            computing = torch.cuda.current_stream()
            computing.wait_event(done)
            copy.record_stream(computing)  # its memory belongs to the other stream
            return copy

        return arrived

    def record_collectives(self, directory: Path) -> None:
        major, minor = (int(part) for part in torch.__version__.split(".")[:2])
        # Named TORCH_FR_* since 2.9. Later ones also read the older names, with a warning on each rank.
        newer = (major, minor) >= (2, 10)
        for names, value in {
            ("TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_FR_BUFFER_SIZE"): str(_RECORDED_COLLECTIVES),
            ("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "TORCH_FR_DUMP_TEMP_FILE"): str(
                directory / "nccl-trace-rank-"
            ),
            ("TORCH_NCCL_DUMP_ON_TIMEOUT",): "1",
        }.items():
            if not any(name in os.environ for name in names):
                os.environ[names[-1] if newer else names[0]] = value

    def write_collectives(self, path: Path) -> None:
        module = torch._C._distributed_c10d
        # The recorder became that of every backend, and its dump got another name.
        dump = getattr(module, "_dump_nccl_trace_json", None) or getattr(module, "_dump_fr_trace_json", None)
        if dump is not None:
            text = dump()
            path.write_bytes(text if isinstance(text, bytes) else str(text).encode())

    def mark(self) -> Any:
        # On the device: the host runs ahead of it, so that its clock says nothing of a slow device.
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, first: Any, second: Any) -> float:
        return float(first.elapsed_time(second)) / 1000

    def peak_memory_bytes(self) -> int:
        return int(torch.cuda.max_memory_allocated())

    def peak_flops(self, precision: str) -> float | None:
        if precision != "bf16":
            return None
        device_name = torch.cuda.get_device_name()
        matches = [name for name in PEAK_DENSE_BF16_FLOPS if name in device_name]
        return PEAK_DENSE_BF16_FLOPS[max(matches, key=len)] if matches else None

    def description(self) -> str:
        return f"CUDA over NCCL: {torch.cuda.get_device_name()} (torch {torch.__version__})"


def kernel_cache() -> Path:
    """A directory of this user on this host's own disk for compiled kernels, which all ranks of the host share.

    Triton's default lies in the home directory, which all ranks of a job would fill at the same time over the network.
    What lies in it is executed: where the usual name is somebody else's or open to others, a fresh directory is made.
    """
    place = Path(tempfile.gettempdir()) / f"salamandra-triton-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return place if private else Path(tempfile.mkdtemp(prefix="salamandra-triton-"))
