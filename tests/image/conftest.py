"""What the image's tests build on: a base with a stub of PyTorch, wheels, and a builder for both formats."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_builder import FORMATS, REPOSITORY, Builder, Container, run

HERE = Path(__file__).parent
KEPT = REPOSITORY / ".venv/image"
"""Debian and the wheels, kept between runs."""


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    if os.geteuid() != 0:
        pytest.skip("building an image without an engine's daemon needs root")
    for program in ("buildah", "debootstrap"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (make test-image installs it)")
    base = "localhost/salamandra-test-base"
    wheels = KEPT / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    run(["bash", str(HERE / "make_base.sh"), str(KEPT), base])
    run([sys.executable, str(HERE / "wheelhouse.py"), str(wheels), "data", "hf"])
    configuration = tmp_path_factory.mktemp("pip") / "pip.conf"
    configuration.write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")
    return Builder(base, wheels, configuration)


@pytest.fixture(scope="session", params=FORMATS)
def container(request: pytest.FixtureRequest, builder: Builder) -> Iterator[Container]:
    """Of the image as users build it, in each format."""
    image = f"localhost/salamandra-test:{request.param}"
    builder.build_as_users_do(image, request.param)
    name = run(["buildah", "from", "--pull-never", image]).strip()
    yield Container(name)
    run(["buildah", "rm", name])
    run(["buildah", "rmi", image])
