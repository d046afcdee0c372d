"""Builds and runs images without an engine's daemon, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FORMATS = ("docker", "oci")


@dataclass(frozen=True)
class Builder:
    """Builds with wheels from a directory instead of a network, as any user of the Dockerfile could."""

    base: str
    wheels: Path
    configuration: Path

    def options(self, image_format: str) -> list[str]:
        return [
            *("--isolation", "chroot", "--pull-never", "--from", self.base, "--format", image_format),
            *(
                "--volume",
                f"{self.wheels}:/wheelhouse:ro",
                "--volume",
                f"{self.configuration}:/etc/pip.conf:ro",
            ),
        ]

    def build_as_users_do(self, image: str, image_format: str) -> None:
        """With launch/container/build.sh."""
        command = [str(REPOSITORY / "launch/container/build.sh"), image, *self.options(image_format)]
        run(command, environment={**os.environ, "BUILDER": "buildah"})

    def refused(self, context: Path, image_format: str, *options: str) -> str:
        """What a build says that has to fail."""
        command = ["buildah", "build", *self.options(image_format), *options, str(context)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
        assert done.returncode != 0, "this must not become an image"
        return done.stdout + done.stderr


def run(command: Sequence[str], *, environment: dict[str, str] | None = None) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Container:
    """A container of an image; commands run as the image's user unless another is asked for."""

    name: str

    def call(self, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["buildah", "run", "--isolation", "chroot", *options, self.name, "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A command whose process is the one that is yielded, with no shell between, as runtimes of clusters do."""
        root = run(["buildah", "mount", self.name]).strip()
        script = (
            'root=$1; shift; for place in proc dev; do mount --rbind "/$place" "$root/$place"; done; '
            'exec chroot --userspec=10001:10001 "$root" /usr/bin/env -C /workspace HOME=/tmp "$@"'
        )
        enter = ["unshare", "--mount", "bash", "-c", script, "bash", root, *command]
        with subprocess.Popen(
            enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def says(self, *command: str) -> str:
        done = self.call(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()
