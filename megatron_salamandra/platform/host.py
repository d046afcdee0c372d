"""The host's CPU over gloo: the same training code, without a GPU.

Megatron-Core asks for CUDA in three ways, and this platform answers each of them:

1. tensor factories with ``device="cuda"`` or ``torch.cuda.current_device()``, ``.cuda()`` and
   comparisons of ``tensor.type()`` with ``"torch.cuda.*Tensor"``: a
   :class:`torch.overrides.TorchFunctionMode` maps all of them to the CPU;
2. queries and streams of ``torch.cuda``: replaced by no-ops while the platform is started;
3. the CUDA random state behind ``tensor_parallel.random``: replaced by the CPU generator.

It is only ever active after :meth:`HostPlatform.start`, never beside a CUDA context, and the
name ``host`` appears in every log.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from megatron_salamandra.platform.base import Platform

CPU = torch.device("cpu")


def _is_cuda(device: object) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.startswith("cuda")


def _map_devices(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(CPU if _is_cuda(value) else value for value in values)


class CudaRequestsToCpu(TorchFunctionMode):
    """Answers torch calls that name a CUDA device with CPU tensors."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not named:
            # Megatron-Core recognises parameter dtypes by these names.
            return str(func(*args)).replace("torch.", "torch.cuda.", 1)
        if _is_cuda(named.get("device")):
            named["device"] = CPU
        if func is torch.Tensor.to:
            args = _map_devices(args)
        return func(*args, **named)


class _NoStream:
    """Stands for a CUDA stream or event: everything it is asked to order already is in order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.cuda_stream = 0

    def __enter__(self) -> _NoStream:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def wait_stream(self, stream: object) -> None: ...
    def wait_event(self, event: object) -> None: ...
    def record_event(self, event: object = None) -> _NoStream:
        return self

    def record(self, stream: object = None) -> None: ...
    def wait(self, stream: object = None) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, end: object) -> float:
        return 0.0


@contextlib.contextmanager
def _no_stream_context(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _nothing() -> Any:
    """A new function that does nothing: torch's compiler keeps its rules by function, so none may serve twice."""
    return lambda *args, **kwargs: None


def _cpu_rng_state(device: object = None, **kwargs: Any) -> torch.Tensor:
    return torch.get_rng_state()


def _set_cpu_rng_state(state: torch.Tensor, device: object = None, **kwargs: Any) -> None:
    torch.set_rng_state(state)


CUDA_ANSWERS: dict[str, Any] = {
    "current_device": lambda: CPU,
    "set_device": _nothing(),
    "device_count": lambda: 1,
    "synchronize": _nothing(),
    "Stream": _NoStream,
    "Event": _NoStream,
    "stream": _no_stream_context,
    "current_stream": lambda *args, **kwargs: _NoStream(),
    "default_stream": lambda *args, **kwargs: _NoStream(),
    "get_rng_state": _cpu_rng_state,
    "set_rng_state": _set_cpu_rng_state,
    "manual_seed": lambda seed: torch.manual_seed(seed) and None,
    "memory_allocated": lambda *args: 0,
    "max_memory_allocated": lambda *args: 0,
    "memory_reserved": lambda *args: 0,
    "reset_peak_memory_stats": _nothing(),
    "empty_cache": _nothing(),
}


class HostPlatform(Platform):
    """CPU ranks; the answer to Megatron-Core's CUDA requests is installed by :meth:`start`."""

    name = "host"
    backend = "gloo"

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self._started = False

    def start(self, local_rank: int) -> None:
        if self._started:
            return
        # Importing it loads torch's compiler, which wants to find torch.cuda as it was built.
        from megatron.core.tensor_parallel import random as tensor_parallel_random

        # One thread per rank: ranks of one machine already fill its cores.
        torch.set_num_threads(1)
        for name, answer in CUDA_ANSWERS.items():
            self._replace(torch.cuda, name, answer)
        self._replace(tensor_parallel_random, "_get_cuda_rng_state", _cpu_rng_state)
        self._replace(tensor_parallel_random, "_set_cuda_rng_state", _set_cpu_rng_state)
        self._undo.enter_context(CudaRequestsToCpu())
        self._started = True

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        original = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.callback(setattr, owner, name, original)

    def stop(self) -> None:
        self._undo.close()
        self._started = False

    @property
    def device(self) -> torch.device:
        return CPU

    def synchronize(self) -> None:
        return None

    def fetch(self, values: torch.Tensor) -> list[float]:
        return [float(value) for value in values.tolist()]

    def staging(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def begin_copy(self, staged: torch.Tensor) -> Callable[[], torch.Tensor]:
        return lambda: staged

    def record_collectives(self, directory: Path) -> None:
        return None  # gloo has no recorder

    def write_collectives(self, path: Path) -> None:
        return None

    def mark(self) -> Any:
        return time.perf_counter()

    def seconds_between(self, first: Any, second: Any) -> float:
        return float(second - first)

    def peak_memory_bytes(self) -> int:
        # Linux reports the resident maximum in KiB.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def peak_flops(self, precision: str) -> float | None:
        return None

    def description(self) -> str:
        return f"host CPU over gloo, one thread per rank (torch {torch.__version__})"
