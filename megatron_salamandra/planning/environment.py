"""What this environment has: versions, devices and libraries, against what this distribution requires.

This process imports none of them: whether they can be imported is tried in a child process.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import megatron_salamandra
from megatron_salamandra.foundation.errors import UserError

_DISTRIBUTION = "megatron-salamandra"

# Distribution, and what its absence costs.
_PURPOSES = {
    "torch": "everything that computes",
    "megatron-core": "parallel training",
    "fsspec": "data behind URLs",
    "isal": "jsonl.gz input",
    "numpy": "shards and batches",
    "orjson": "jsonl input",
    "psutil": "checkpoint saving by Megatron-Core, which hangs without it",
    "pyarrow": "parquet input",
    "pydantic": "configuration",
    "pyyaml": "configuration",
    "sentencepiece": "tokenizer",
    "tensorboard": "training curves",
    "zstandard": "jsonl.zst input",
    "transformers": "checking exports against Hugging Face",
    "safetensors": "Hugging Face export",
    "tokenizers": "Hugging Face export",
    "triton": "our GPU kernels",
    "transformer-engine": "fused Adam on GPUs",
    "apex": "fused Adam on GPUs",
    "lm-eval": "benchmarks on the Hugging Face export",
}
_ALSO_OPTIONAL = ("triton", "transformer-engine", "apex")
"""Looked for on every system, whatever the extras say of it."""

_DEVELOPMENT = ("dev",)
_MODULES = {"megatron-core": "megatron.core", "pyyaml": "yaml", "protobuf": "google.protobuf"}

# Says the name of each module before it is imported, so that one that ends the process is known.
_IMPORT_EACH = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, "ends the process that imports it"]), flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, None]), flush=True)
    except BaseException as error:
        reason = " ".join(str(error).split())
        print(json.dumps([name, f"{type(error).__name__}: {reason}"]), flush=True)
"""
_IMPORT_SECONDS = 300


@dataclass(frozen=True)
class Library:
    """One distribution.

    Attributes:
        version: what is installed; None when nothing is.
        required: the versions that will do, such as ``>=2.8``; empty if any.
        problem: why what is needed or installed cannot be used; None if it can.
    """

    name: str
    version: str | None
    required: str
    purpose: str
    needed: bool
    problem: str | None


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
        """Whether everything needed is installed, in a version that will do, and can be imported."""
        return all(library.problem is None for library in self.libraries if library.needed)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def inspect_environment() -> EnvironmentReport:
    """Look at this machine; takes as long as importing torch in a child process, and starts nvidia-smi."""
    return EnvironmentReport(
        version=megatron_salamandra.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_nvidia_gpus(),
        libraries=_libraries(),
    )


def render_environment(report: EnvironmentReport) -> str:
    """The report as a table, and below it what is wrong."""
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
                mark = "!" if library.problem else " "
                lines.append(f"{mark} {library.name:<20}{state:<18}{library.required:<18}{library.purpose}")
    wrong = [library for library in report.libraries if library.problem]
    if wrong:
        lines += ["", *(f"! {library.name}: {library.problem}" for library in wrong)]
    return "\n".join(lines)


def _libraries() -> list[Library]:
    needed, optional = _requirements()
    broken = _failed_imports([name for name in needed if _installed_version(name) is not None])
    libraries = []
    for group, is_needed in ((needed, True), (optional, False)):
        for name, required in group.items():
            version = _installed_version(name)
            if version is None:
                problem = "it is not installed" if is_needed else None
            else:
                problem = _out_of_range(version, required.versions) or broken.get(name)
            libraries.append(
                Library(name, version, str(required.versions), required.purpose, is_needed, problem)
            )
    return libraries


@dataclass(frozen=True)
class _Required:
    versions: SpecifierSet
    purpose: str


def _requirements() -> tuple[dict[str, _Required], dict[str, _Required]]:
    """Needed and optional distributions, as the installed project states them."""
    needed: dict[str, _Required] = {}
    optional = {name: _Required(SpecifierSet(), _PURPOSES[name]) for name in _ALSO_OPTIONAL}
    for extra, requirement in _stated():
        group = optional if extra else needed
        name = canonicalize_name(requirement.name)
        versions = group[name].versions if name in group else SpecifierSet()
        purpose = _PURPOSES.get(name) or (f"extra {extra}" if extra else "this project")
        group[name] = _Required(versions & requirement.specifier, purpose)
    return needed, {name: required for name, required in optional.items() if name not in needed}


def _stated() -> Iterator[tuple[str, Requirement]]:
    """Extra (empty where there is none) and requirement, of those that hold on this system.

    Raises:
        UserError: the project is not installed, so that nothing says what it requires.
    """
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{_DISTRIBUTION} is not installed in {sys.prefix}, so there is no list of what it requires\n"
            "  pip install -e . in a checkout of the project"
        ) from None
    extras = ["", *(distribution.metadata.get_all("Provides-Extra") or [])]
    for text in distribution.requires or []:
        requirement = Requirement(text)
        for extra in extras:
            if extra in _DEVELOPMENT:
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                yield extra, requirement
                break


def _out_of_range(version: str, specifier: SpecifierSet) -> str | None:
    try:
        fits = specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return f"{version} is no version; {specifier} is required"
    return None if fits else f"{version} is installed, {specifier} is required"


def _failed_imports(distributions: list[str]) -> dict[str, str]:
    """Why a distribution cannot be imported, of those that cannot; tried in a child process, or in several if one of
    them ends it."""
    modules = {_MODULES.get(name, name.replace("-", "_")): name for name in distributions}
    failed: dict[str, str] = {}
    left = list(modules)
    while left:
        states = _try_imports(left)
        failed |= {
            modules[name]: f"cannot be imported: {reason}" for name, reason in states.items() if reason
        }
        left = left[max(len(states), 1) :]
    return failed


def _try_imports(modules: list[str]) -> dict[str, str | None]:
    """The first of ``modules`` that one process got through, each with what is wrong with it."""
    # -P: a file of that name in the current directory is not what is asked about.
    command = [sys.executable, "-P", "-c", _IMPORT_EACH, *modules]
    try:
        output = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_IMPORT_SECONDS,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    states: dict[str, str | None] = {}
    for line in output.decode(errors="replace").splitlines():
        try:
            name, reason = json.loads(line)
        except (ValueError, TypeError):
            continue  # something that a package prints
        if name in modules:
            states[name] = reason
    return states


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
