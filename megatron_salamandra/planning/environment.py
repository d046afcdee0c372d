"""What this environment has: versions, devices and optional libraries, without importing any of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import megatron_salamandra

# Distribution name, and what its absence costs.
_NEEDED = {
    "torch": "everything that computes",
    "megatron-core": "parallel training",
    "numpy": "shards and batches",
    "orjson": "jsonl input",
    "psutil": "checkpoint saving by Megatron-Core, which hangs without it",
    "pyarrow": "parquet input",
    "pydantic": "configuration",
    "PyYAML": "configuration",
    "sentencepiece": "tokenizer",
    "tensorboard": "training curves",
    "zstandard": "jsonl.zst input",
}
_OPTIONAL = {
    "transformers": "checking exports against Hugging Face",
    "safetensors": "Hugging Face export",
    "tokenizers": "Hugging Face export",
    "triton": "our GPU kernels",
    "transformer-engine": "fused Adam on GPUs",
    "apex": "fused Adam on GPUs",
    "lm-eval": "benchmarks on the Hugging Face export",
}


@dataclass(frozen=True)
class Library:
    """One distribution: its version, or None when it is not installed."""

    name: str
    version: str | None
    purpose: str
    needed: bool


@dataclass(frozen=True)
class EnvironmentReport:
    """What ``salamandra doctor`` shows."""

    version: str
    python: str
    system: str
    cpu_count: int
    memory_bytes: int
    gpus: list[str]
    libraries: list[Library]

    @property
    def complete(self) -> bool:
        """Whether everything needed is installed."""
        return all(library.version is not None for library in self.libraries if library.needed)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def inspect_environment() -> EnvironmentReport:
    """Look at this machine; takes well under a second and starts at most nvidia-smi."""
    return EnvironmentReport(
        version=megatron_salamandra.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_nvidia_gpus(),
        libraries=[
            Library(name, _installed_version(name), purpose, needed)
            for group, needed in ((_NEEDED, True), (_OPTIONAL, False))
            for name, purpose in group.items()
        ],
    )


def render_environment(report: EnvironmentReport) -> str:
    """The report as a table."""
    lines = [
        f"megatron-salamandra {report.version}, Python {report.python}",
        report.system,
        f"{report.cpu_count} CPUs, {report.memory_bytes / 2**30:.1f} GiB of memory",
    ]
    lines += [f"GPU {index}: {name}" for index, name in enumerate(report.gpus)]
    if not report.gpus:
        lines.append("no NVIDIA GPU found: training runs on the CPU (platform host)")
    for needed, title in ((True, "Needed"), (False, "Optional")):
        lines += ["", title]
        for library in report.libraries:
            if library.needed is needed:
                state = library.version or ("MISSING" if needed else "-")
                lines.append(f"  {library.name:<20}{state:<18}{library.purpose}")
    return "\n".join(lines)


def _installed_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_gpus() -> list[str]:
    """Name and memory of each GPU as the driver tells them; empty without a driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
