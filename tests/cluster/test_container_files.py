"""Dockerfile, Apptainer definition and the environment file of Alps agree, and with package and profile."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from megatron_salamandra.cluster.profile import load_profile

REPOSITORY = Path(__file__).parents[2]
CONTAINER = REPOSITORY / "launch/container"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
DEFINITION = (CONTAINER / "salamandra.def").read_text()


def section(name: str) -> list[str]:
    """Lines of a section of the Apptainer definition."""
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, re.M | re.S)
    assert found is not None, name
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def copied_by_docker() -> set[str]:
    """Names at the top of the repository that the image is made of."""
    until = DOCKERFILE.index("RUN python3 launch/container/install.py")
    lines = re.findall(r"^COPY (.+)$", DOCKERFILE[:until], re.M)
    return {name for line in lines for name in line.split()[:-1]}


def test_both_start_from_the_same_base() -> None:
    (docker,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.M)
    assert re.findall(r"^From: (\S+)$", DEFINITION, re.M) == [docker]


def test_both_are_made_of_the_same_files_at_the_same_place() -> None:
    files = dict(line.split() for line in section("files"))
    assert set(files) == copied_by_docker()
    assert files == {name: f"/opt/salamandra/{name}" for name in files}
    assert "\nWORKDIR /opt/salamandra\n" in DOCKERFILE


def test_both_install_with_the_same_script_and_arguments() -> None:
    (docker,) = re.findall(r"^RUN python3 (launch/container/install\.py .*)$", DOCKERFILE, re.M)
    (apptainer,) = section("post")
    spelled = re.sub(r'"\$(\w+)"', r'"{{ \1 }}"', docker)
    assert apptainer == f"python3 /opt/salamandra/{spelled}"


def test_both_carry_the_same_labels_and_default_arguments() -> None:
    labels = dict(re.findall(r'(org\.[\w.]+)="([^"]*)"', DOCKERFILE))
    docker = {name: re.sub(r"\$(\w+)", r"{{ \1 }}", value) for name, value in labels.items()}
    assert dict(line.split(None, 1) for line in section("labels")) == docker
    arguments = re.findall(r"^ARG (\w+=\w+)$", DOCKERFILE, re.M)
    assert section("arguments") == arguments == ["REVISION=unknown", "VERSION=unknown"]


def test_the_build_sees_every_file_that_it_copies() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    seen = {line.removeprefix("!").removesuffix("/**") for line in ignored if line.startswith("!")}
    assert copied_by_docker() <= seen
    assert {name for name in seen if not (REPOSITORY / name).exists()} == set()


def test_the_image_gets_every_package_root_of_the_project() -> None:
    roots = re.findall(r'packages_below\("([\w.]+)", "(\w+)"\)', (REPOSITORY / "setup.py").read_text())
    assert roots
    for root, package in roots:
        assert (package if root == "." else root) in copied_by_docker()


def test_no_file_of_the_image_names_a_registry_but_the_base_images() -> None:
    for path in (REPOSITORY / "Dockerfile", *(path for path in CONTAINER.rglob("*") if path.is_file())):
        hosts = set(re.findall(r"\b[\w-]+(?:\.[\w-]+)*\.(?:io|org|com|ch|net)(?=[/:#])", path.read_text()))
        # Documentation is a source, not a registry.
        assert hosts <= {"nvcr.io", "docs.cscs.ch", "docs.nvidia.com"}, path


def test_alps_environment_file_says_what_the_profile_says() -> None:
    edf = tomllib.loads((CONTAINER / "edf.toml").read_text())
    own = {"PYTHONNOUSERSITE": "1"}  # as the supervisor says to every rank in a container
    assert edf["env"] == {**load_profile("alps-clariden").environment, **own}
    assert edf["annotations"]["com"]["hooks"]["aws_ofi_nccl"]["enabled"] == "true"
    assert edf["image"].endswith(".sqsh"), "a file, which nodes need not fetch one by one"
    assert edf["writable"] is True
    for mount in edf["mounts"]:
        source, target = mount.split(":")
        assert source == target, "paths of a run are the same inside and outside"
