"""Our requirements can be met beside what the base image holds; no image is looked at."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
IMAGES = REPOSITORY / "launch/container/images"
EXTRAS = ("data", "hf")


def pins_of(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", REPOSITORY / "launch/container/install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_the_image(install: ModuleType, image: dict[str, str]) -> dict[str, str]:
    """What would be installed: the image's own, and the pins for its Python for what it lacks."""
    return pins_of(install.constraints(image, (REPOSITORY / "constraints/py312.txt").read_text()))


def contradictions(chosen: dict[str, str]) -> Iterator[str]:
    """Requirements of this distribution, and of all that it needs, that the chosen versions do not meet."""
    ends = [("megatron-salamandra", extra) for extra in ("", *EXTRAS)]
    seen = set(ends)
    while ends:
        name, extra = ends.pop()
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            environment = {"extra": extra, "python_version": "3.12", "python_full_version": "3.12.3"}
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            wanted = canonicalize_name(requirement.name)
            if wanted not in chosen:
                yield f"{name} needs {wanted}, which has no pin"
                continue
            if not requirement.specifier.contains(chosen[wanted], prereleases=True):
                yield f"{name} needs {requirement}, and {chosen[wanted]} would be there"
            further = {(wanted, entry) for entry in ("", *requirement.extras)} - seen
            seen |= further
            ends += further


def base() -> str:
    found = {
        file: re.search(
            r"^F(?:ROM|rom:) nvcr\.io/nvidia/pytorch:([0-9.]+)-py3$", (REPOSITORY / file).read_text(), re.M
        )
        for file in ("Dockerfile", "launch/container/salamandra.def")
    }
    releases = {match[1] for match in found.values() if match is not None}
    assert len(releases) == 1 and all(found.values()), found
    return releases.pop()


def test_the_base_can_hold_this_project(install: ModuleType) -> None:
    image = pins_of((IMAGES / f"{base()}.txt").read_text())
    assert {"torch", "triton", "numpy"} <= image.keys()
    assert list(contradictions(in_the_image(install, image))) == []


@pytest.mark.parametrize("release", sorted(path.stem for path in IMAGES.glob("*.txt")))
def test_each_image_is_judged_as_the_table_says(install: ModuleType, release: str) -> None:
    table = (IMAGES / "README.md").read_text()
    row = re.search(rf"^\| {re.escape(release)} \|.*\| ([^|]*) \|$", table, re.M)
    assert row is not None, "the table lacks this image"
    problems = list(contradictions(in_the_image(install, pins_of((IMAGES / f"{release}.txt").read_text()))))
    assert bool(problems) == row[1].startswith("no:"), problems
    assert ("**the base**" in row[1]) == (release == base())
    if problems:
        assert all("torch" in problem for problem in problems)


def test_an_image_with_a_package_that_is_too_old_is_named(install: ModuleType) -> None:
    image = {**pins_of((IMAGES / f"{base()}.txt").read_text()), "numpy": "1.20.0"}
    assert any(
        "numpy" in problem and "1.20.0" in problem for problem in contradictions(in_the_image(install, image))
    )
