"""The software of a node: it must be the same on all nodes of a run."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

from megatron_salamandra import __version__
from megatron_salamandra.node_check.result import Check, State

_PACKAGES = (
    "torch",
    "megatron-core",
    "transformer-engine",
    "triton",
    "numpy",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
)
_SOURCES = Path(__file__).parents[1]


def check_packages() -> Check:
    """Versions of what a run's numbers depend on, and a checksum of this project's sources."""
    facts = {
        "python": platform.python_version(),
        "megatron-salamandra": __version__,
        "sources": sources_checksum(),
    }
    for name in _PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "none"
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value != "none")
    return Check("packages", State.OK, told, facts=facts)


def sources_checksum() -> str:
    """Of every Python file of this package: nodes with local copies may have a stale one at the same version."""
    checksum = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        checksum.update(str(path.relative_to(_SOURCES)).encode() + b"\0" + path.read_bytes())
    return checksum.hexdigest()[:12]
