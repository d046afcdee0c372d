"""What can be said of the launch files without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for pattern in ("launch/*.sbatch", "launch/container/*.sh", "tests/*/*.sh")
    for path in REPOSITORY.glob(pattern)
)


def installed(program: str) -> str:
    """Path of a linter in this environment, or skip."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_accepts(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_shellcheck_has_nothing_to_say() -> None:
    command = [installed("shellcheck"), "--external-sources", *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_has_nothing_to_say() -> None:
    command = [installed("hadolint"), str(REPOSITORY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_image_is_pinned_and_does_not_run_as_root() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert re.search(r"^FROM nvcr\.io/nvidia/pytorch:\d\d\.\d\d-py3$", text, re.M)
    assert re.search(r"^USER (?!0\b)\d+$", text, re.M)


def test_the_image_has_no_entrypoint_that_enroot_would_run() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert not re.search(r"^ENTRYPOINT", text, re.M)
    assert text.rstrip().endswith('CMD ["salamandra", "--help"]')


def test_the_log_of_a_plain_sbatch_needs_no_directory() -> None:
    text = (REPOSITORY / "launch/pretrain.sbatch").read_text()
    (output,) = re.findall(r"^#SBATCH --output=(\S+)$", text, re.M)
    assert "/" not in output


def test_the_signal_goes_to_the_batch_shell_before_the_time_limit() -> None:
    text = (REPOSITORY / "launch/pretrain.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.M))
    name, seconds = options["signal"].split("@")
    assert name == "B:USR1", "the supervisor, which takes the shell's place, asks the ranks"
    assert int(seconds) >= 300
    assert "\nexec " in text
