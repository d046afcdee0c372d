"""Wheels that the image's build needs, fetched beforehand the way this machine fetches packages."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PINS = REPOSITORY / "constraints/py311.txt"
"""Of the base image's Python."""

OF_THE_IMAGE = ("torch", "triton")
BUILD_TOOLS = ("setuptools", "wheel")


def needed(extras: tuple[str, ...]) -> set[str]:
    """Names of what the project and these extras need, through all levels, without what the image has."""
    found: set[str] = set()
    open_ends = [("megatron-salamandra", extra) for extra in ("", *extras)]
    seen = set(open_ends)
    while open_ends:
        name, extra = open_ends.pop()
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            wanted = canonicalize_name(requirement.name)
            if wanted in OF_THE_IMAGE or (
                requirement.marker is not None and not requirement.marker.evaluate({"extra": extra})
            ):
                continue
            found.add(wanted)
            further = {(wanted, entry) for entry in ("", *requirement.extras)} - seen
            seen |= further
            open_ends += further
    return found


def fill(directory: Path, extras: tuple[str, ...]) -> None:
    """Put the pinned wheels into the directory; those that are there stay."""
    wanted = needed(extras) | set(BUILD_TOOLS)
    pins = {
        canonicalize_name(line.split("==")[0]): line
        for line in PINS.read_text(encoding="utf-8").splitlines()
        if "==" in line and line[0] != "#"
    }
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    names = [pins.get(name, name) for name in sorted(wanted)]
    subprocess.run(
        [*command, "--python-version=3.11", f"--dest={directory}", f"--find-links={directory}", *names],
        check=True,
    )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), tuple(sys.argv[2:]))
