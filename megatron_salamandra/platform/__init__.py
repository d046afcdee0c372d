"""Where ranks run: CUDA devices over NCCL, or the host's CPU over gloo.

Public names: :class:`Platform`, :func:`select_platform`, :class:`PlatformError`,
:func:`background_save_options`, :func:`start_result_queue`.
Nothing outside this package may know what Megatron-Core assumes about CUDA.
"""

from __future__ import annotations

from megatron_salamandra.platform.base import Platform, PlatformError
from megatron_salamandra.platform.megatron_versions import background_save_options, start_result_queue
from megatron_salamandra.platform.select import select_platform

__all__ = [
    "Platform",
    "PlatformError",
    "background_save_options",
    "select_platform",
    "start_result_queue",
]
