"""Environment variables of processes that this project starts, where the user's own do not say otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping

LOCAL_DEFAULTS = {
    # Ranks share the cores; torch would start as many threads as there are cores in each.
    "OMP_NUM_THREADS": "1",
    # All ranks are here: gloo need not resolve this machine's name, which on some laptops fails.
    "GLOO_SOCKET_IFNAME": "lo",
    # Megatron-Core warns on every import that Transformer Engine and Apex are missing.
    "PYTHONWARNINGS": "ignore::UserWarning,ignore::FutureWarning,ignore::DeprecationWarning",
}
"""Of ranks that all run on this machine."""


def local_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a process on this machine: our defaults, the user's variables over them, ``extra`` over both."""
    return {**LOCAL_DEFAULTS, **os.environ, **(extra or {})}
