"""Install this project into an image that has a PyTorch of its own; the Dockerfile and salamandra.def both run it.

    python3 install.py [--revision REVISION] [--version VERSION]      beside the project's setup.py

The image's PyTorch, Triton, Transformer Engine and their libraries are built for each other. So whatever the image has
stays as it is, whatever it lacks gets the version that the project's tests run with (constraints/), and nothing is
compiled. If a package of the image is another one afterwards, this ends with code 1 and the image is not made.

Standard library only, and no shell: images in OCI format ignore which shell a Dockerfile asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
EXTRAS = ("data", "hf")
MADE_FOR_EACH_OTHER = ("torch", "triton", "transformer-engine", "numpy")


def normalized(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints(image: Mapping[str, str], pins: str) -> str:
    """Text of a constraints file: the image's versions, and the project's pins for what the image lacks.

    Args:
        image: version of each package in the image, by its normalized name.
        pins: text of the project's own constraints file.
    """
    kept = [f"{name}=={version}" for name, version in sorted(image.items())]
    lines = [line.strip() for line in pins.splitlines()]
    added = [
        line
        for line in lines
        if line and not line.startswith("#") and normalized(re.split(r"[=<>!~ ;]", line)[0]) not in image
    ]
    return "\n".join([*kept, *added]) + "\n"


def replaced(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One line for each package of ``before`` that is another one, or gone, in ``after``."""
    return [
        f"{name} was replaced: {version} -> {after.get(name, 'gone')}"
        for name, version in sorted(before.items())
        if after.get(name) != version
    ]


def pip(*arguments: str, constraint: Path | None = None) -> str:
    """What pip prints; its messages go on to the build's log, and a failure of it ends the build."""
    # An image sets PIP_CONSTRAINT to a file of its own; what is installed says the same and more.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    if constraint is not None:
        environment["PIP_CONSTRAINT"] = environment["PIP_BUILD_CONSTRAINT"] = str(constraint)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}install.py: {' '.join(command)} ended with code {done.returncode}")
    return done.stdout


def installed() -> dict[str, str]:
    """Version of each package, and what PyTorch says of itself and where it lies."""
    found = {
        normalized(entry["name"]): entry["version"] for entry in json.loads(pip("list", "--format=json"))
    }
    if "torch" not in found:
        sys.exit("install.py: this image has no PyTorch\n  build on an image that has one for its GPUs")
    return found


def imported_torch() -> str:
    """Version and place of the PyTorch that Python finds, which need not be the one that pip lists."""
    program = "import torch; print(torch.__version__, torch.__file__)"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("install.py: PyTorch cannot be imported in this image")
    return done.stdout.strip()


def main() -> None:
    """Install, or end with a message."""
    parser = argparse.ArgumentParser(description="Install this project into an image with PyTorch.")
    parser.add_argument("--revision", default="", help="git revision of the sources")
    parser.add_argument("--version", default="", help="version that the image is labelled with")
    options = parser.parse_args()
    version = version_of(SOURCES)
    if options.version not in ("", "unknown", version):
        sys.exit(
            f"install.py: VERSION={options.version}, but the sources are of version {version}\n"
            "  launch/container/build.sh passes what the sources say"
        )
    before, torch = installed(), imported_torch()
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    pins = SOURCES / "constraints" / f"{python}.txt"
    if not pins.is_file():
        sys.exit(f"install.py: no {pins}: the project is not tested with the image's Python")
    if options.revision not in ("", "unknown"):
        (SOURCES / "megatron_salamandra/revision.txt").write_text(options.revision + "\n", encoding="utf-8")
    limits = SOURCES / "image-constraints.txt"
    limits.write_text(constraints(before, pins.read_text(encoding="utf-8")), encoding="utf-8")
    with tempfile.TemporaryDirectory() as wheels:
        # Only here, where the tools that build are not those of the image, the project's pins hold alone.
        pip("wheel", "--no-deps", "--wheel-dir", wheels, str(SOURCES), constraint=pins)
        (wheel,) = Path(wheels).glob("*.whl")
        pip(
            "install", "--no-cache-dir", "--only-binary=:all:", "--constraint", str(limits),
            f"{wheel}[{','.join(EXTRAS)}]",
        )  # fmt: skip
    problems = replaced(before, installed())
    if (now := imported_torch()) != torch:
        problems.append(f"another torch is imported: {torch} -> {now}")
    if problems:
        sys.exit("install.py: " + "\ninstall.py: ".join(problems))
    kept = ", ".join(f"{name} {before[name]}" for name in MADE_FOR_EACH_OTHER if name in before)
    print(f"install.py: megatron-salamandra {version} is installed; kept: {kept}")


def version_of(sources: Path) -> str:
    """The project's version, as its sources say it."""
    text = (sources / "megatron_salamandra/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.M)
    if found is None:
        sys.exit(f"install.py: {sources}/megatron_salamandra/__init__.py has no __version__")
    return found[1]


if __name__ == "__main__":
    main()
