"""Where ranks run: CUDA devices over NCCL, or the host's CPU over gloo.

Public names: :class:`Platform`, :func:`select_platform`, :class:`PlatformError`.
Nothing outside this package may know what Megatron-Core assumes about CUDA.
"""

from __future__ import annotations

from megatron_salamandra.platform.base import Platform, PlatformError
from megatron_salamandra.platform.select import select_platform

__all__ = [
    "Platform",
    "PlatformError",
    "select_platform",
]
