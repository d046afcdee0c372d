"""What differs between the versions of Megatron-Core we support (0.16.1 to 0.19), in one place."""

from __future__ import annotations

import inspect
from typing import Any

from megatron.core import dist_checkpointing


def background_save_options() -> dict[str, Any]:
    """Arguments that make ``dist_checkpointing.save`` use Megatron-Core's own background writer.

    From 0.17 on the default writer is that of nvidia-resiliency-ext, a package we do not need;
    before, the argument does not exist.
    """
    known = inspect.signature(dist_checkpointing.save).parameters
    return {"async_strategy": "mcore"} if "async_strategy" in known else {}
