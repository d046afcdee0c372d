"""The image with a real PyTorch in it, this environment's: the quick start from its first stage to its last.

Takes gigabytes and minutes, so it runs where SALAMANDRA_FULL_IMAGE is set: ``make test-image FULL=1``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from image_builder import REPOSITORY, Builder, Container, run
from packaging.requirements import Requirement

from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, latest_checkpoint, step_of
from salamandra_data.demo.wheels import WHEELS, fetch_wheel

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not os.environ.get("SALAMANDRA_FULL_IMAGE"), reason="make test-image FULL=1 runs it"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the base image has Python 3.11"),
]

KEPT = REPOSITORY / ".venv/image"


def closure(*names: str) -> set[str]:
    """Distributions, and what they need in this environment."""
    found: set[str] = set()
    open_ends = [*names]
    while open_ends:
        name = open_ends.pop()
        if name in found:
            continue
        found.add(name)
        requirements = [Requirement(text) for text in metadata.requires(name) or []]
        open_ends += [
            entry.name
            for entry in requirements
            if entry.marker is None or entry.marker.evaluate({"extra": ""})
        ]
    return found


@pytest.fixture(scope="module")
def trainer(builder: Builder) -> Iterator[Container]:
    """A container whose image was built on this environment's PyTorch."""
    packages = KEPT / "pytorch"
    shutil.rmtree(packages, ignore_errors=True)
    for name in closure("torch", "triton", "numpy"):
        for file in metadata.distribution(name).files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), packages / file)
    base, image = "localhost/salamandra-test-full-base", "localhost/salamandra-test-full"
    make_base = str(Path(__file__).parent / "make_base.sh")
    run(["bash", make_base, str(KEPT), base, str(packages)])
    shutil.rmtree(packages)
    Builder(base, builder.wheels, builder.configuration).build_as_users_do(image, "oci")
    name = run(["buildah", "from", "--pull-never", image]).strip()
    yield Container(name)
    run(["buildah", "rm", name])
    run(["buildah", "rmi", image, base])


def test_the_quick_start_runs_in_the_image_to_its_end_and_ranks_hear_signals(trainer: Container) -> None:
    kept = metadata.version("torch")
    assert trainer.says("python3", "-c", "import torch; print(torch.__version__)") == kept
    assert trainer.call("salamandra", "doctor").returncode == 0
    downloads = KEPT / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        fetch_wheel(wheel, downloads)
    program = "mkdir -p runs/quickstart && cp -r /downloads runs/quickstart && exec salamandra quickstart"
    done = trainer.call(
        *("bash", "-c", f"{program} --ranks 2 training.steps=8 optimizer.warmup_steps=2"),
        options=["--volume", f"{downloads}:/downloads:ro"],
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    environment = trainer.says("cat", "/workspace/runs/quickstart/run/environment.json")
    assert '"git_revision": null' not in environment
    for signalled in ("launcher", "rank"):
        stop_by_signal(trainer, signalled)


def stop_by_signal(trainer: Container, signalled: str) -> None:
    """Train on the quick start's text until a signal comes to the launcher, or to one rank alone: saved, code 75."""
    workspace = Path(run(["buildah", "mount", trainer.name]).strip()) / "workspace"
    stopped = RunDirectory(workspace / f"runs/stopped-{signalled}")
    command = ("salamandra", "train", "tiny", "data.blend=runs/quickstart/blend.yaml", "--ranks", "2")
    more = (f"run_dir=runs/stopped-{signalled}", "training.steps=100000", "validation.at_end=false")
    with trainer.started(*command, *more) as process:
        deadline = time.monotonic() + 600
        while len(MetricsLog(stopped.metrics).read() if stopped.metrics.exists() else []) < 2:
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()  # type: ignore[union-attr]
            time.sleep(0.2)
        target = process.pid
        if signalled == "rank":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            target = next(
                int(child) for child in children if b".train" in Path(f"/proc/{child}/cmdline").read_bytes()
            )
        os.kill(target, signal.SIGUSR1)
        said, _ = process.communicate(timeout=600)
    assert process.returncode == EXIT_STOPPED, said[-3000:]
    newest = latest_checkpoint(stopped.checkpoints)
    assert newest is not None and step_of(newest) == MetricsLog(stopped.metrics).read()[-1].step
