"""Choice of the platform."""

from __future__ import annotations

import glob
import os

import torch

from megatron_salamandra.platform.base import Platform, PlatformError
from megatron_salamandra.platform.cuda import CudaPlatform
from megatron_salamandra.platform.host import HostPlatform


def select_platform(requested: str = "auto") -> Platform:
    """Return the platform to run on.

    Args:
        requested: ``auto`` takes CUDA when a device is usable, else the host; ``cuda`` and
            ``host`` insist.
    Raises:
        PlatformError: CUDA was asked for and is not usable, or ``auto`` finds a GPU in the
            machine that this torch build cannot drive. Falling back to the CPU in silence
            would waste the allocation, so that needs an explicit ``platform=host``.
    """
    if requested == "host":
        return HostPlatform()
    # Before anything touches the driver: with one hardware queue, kernels of communication and
    # computation start in program order, on which Megatron-Core's overlap relies (and asserts).
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if torch.cuda.is_available():
        return CudaPlatform()
    devices = sorted(glob.glob("/dev/nvidia[0-9]*"))
    if requested == "cuda":
        raise PlatformError(
            f"platform = cuda, but torch {torch.__version__} sees no usable CUDA device\n"
            "  install a CUDA build of torch and a driver, or run with platform=host"
        )
    if devices:
        raise PlatformError(
            f"this machine has {devices[0]}, but torch {torch.__version__} cannot use it\n"
            "  install a CUDA build of torch, or run with platform=host on purpose"
        )
    return HostPlatform()
