"""What ranks talk through: NCCL, and network devices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

from megatron_salamandra.doctor.section import guarded
from megatron_salamandra.node_check import Check, State, check_network

_NCCL_PACKAGES = ("nvidia-nccl-cu13", "nvidia-nccl-cu12")
_ASK_TORCH = (
    "import torch, torch.distributed as d\n"
    "print('.'.join(map(str, torch.cuda.nccl.version())) if d.is_nccl_available() else '')"
)


def device_checks() -> list[Check]:
    """NCCL's version, and the network cards and ports of this machine."""
    return [*guarded("nccl", _nccl), *guarded("network", lambda: [check_network()])]


def _nccl() -> Iterator[Check]:
    for name in _NCCL_PACKAGES:
        try:
            yield Check("nccl", State.OK, f"{metadata.version(name)} ({name})")
            return
        except metadata.PackageNotFoundError:
            continue
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = "missing"
    if "+cpu" in version or version == "missing":
        yield Check("nccl", State.SKIPPED, f"torch {version} has none: ranks talk through gloo")
        return
    # Built into torch, as in NVIDIA's images.
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ASK_TORCH], capture_output=True, text=True, timeout=120, check=False
    )
    found = done.stdout.strip()
    if found:
        yield Check("nccl", State.OK, f"{found} (of torch {version})")
    else:
        yield Check("nccl", State.SKIPPED, f"torch {version} has none: ranks talk through gloo")
