"""What ``salamandra doctor`` finds: versions out of range, and libraries that cannot be imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_salamandra.planning import EnvironmentReport, inspect_environment, render_environment

OLD = {"megatron-core": "0.5.0", "transformers": "4.44.0", "sentencepiece": "not-a-version"}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnvironmentReport:
    """Of an environment with a torch that cannot be loaded, a psutil that crashes, and old distributions."""
    for name, version in OLD.items():
        information = tmp_path / f"old/{name.replace('-', '_')}-{version}.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for name, program in (
        ("torch", 'raise ImportError("libcudart.so.12: cannot open shared object file")'),
        ("psutil", "import os; os._exit(3)"),
    ):
        (tmp_path / f"broken/{name}").mkdir(parents=True)
        (tmp_path / f"broken/{name}/__init__.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path / "old")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "broken")]))
    return inspect_environment()


def test_what_is_out_of_range_or_broken_is_told_and_counts(report: EnvironmentReport) -> None:
    problems = {library.name: library.problem for library in report.libraries}
    assert problems["megatron-core"] == "0.5.0 is installed, <0.20,>=0.16.1 is required"
    assert problems["transformers"] == "4.44.0 is installed, >=4.56 is required"
    assert problems["sentencepiece"] == "not-a-version is no version; >=0.2.3 is required"
    assert problems["torch"] == (
        "cannot be imported: ImportError: libcudart.so.12: cannot open shared object file"
    )
    assert problems["psutil"] == "cannot be imported: ends the process that imports it"
    assert problems["numpy"] is None
    assert problems["zstandard"] is None  # comes after the one that ends the process
    assert not report.complete
    lines = render_environment(report).splitlines()
    assert (
        "! torch: cannot be imported: ImportError: libcudart.so.12: cannot open shared object file" in lines
    )
    assert any(line.startswith("! megatron-core") and ">=0.16.1" in line for line in lines)


def test_what_is_required_is_what_the_distribution_states(report: EnvironmentReport) -> None:
    libraries = {library.name: library for library in report.libraries}
    assert libraries["psutil"].needed
    assert libraries["pyyaml"].required == ">=6.0"
    assert not libraries["safetensors"].needed
    assert "pytest" not in libraries  # for development
    assert libraries["kitoken"].purpose == "extra data"
