"""No command runs what lies in the directory from which it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = (
    "yaml",
    "numpy",
    "pydantic",
    "orjson",
    "tenacity",
    "multiprocessing",
    "argparse",
    "json",
    "salamandra_data",
)
SCRIPT = Path(sys.executable).with_name("salamandra")


def hostile(directory: Path) -> Path:
    """A directory with modules that say that they were run."""
    directory.mkdir()
    for name in NAMES:
        (directory / f"{name}.py").write_text(
            f"open({str(directory / 'executed')!r}, 'a').write('{name} ')\n"
        )
    return directory


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Without the flag, as from a user's shell."""
    left_out = ("PYTHONSAFEPATH", "SLURM_PROCID")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.parametrize("program", ["console script", "module"])
def test_a_command_and_its_workers_leave_the_current_directory_alone(
    tmp_path: Path, small_tokenizer: Path, program: str
) -> None:
    if program == "console script" and not SCRIPT.exists():
        pytest.skip("the package is not installed here")
    directory = hostile(tmp_path / "here")
    for name in "ab":
        lines = (json.dumps({"text": f"document {name} {number}"}) + "\n" for number in range(50))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    start = (
        [str(SCRIPT)] if program == "console script" else [sys.executable, "-m", "megatron_salamandra.cli"]
    )
    words = ["data", "tokenize", "--input", str(tmp_path / "*.jsonl"), "--language", "ca", "--workers", "2"]
    places = ["--out", str(tmp_path / "out"), "--tokenizer", str(small_tokenizer)]
    done = run(directory, "env", "OPENBLAS_NUM_THREADS=2", *start, *words, *places)
    assert done.returncode == 0, done.stderr
    assert not (directory / "executed").exists(), (directory / "executed").read_text()


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("train", 2, "usage: megatron_salamandra.train"),
        ("slurm_rank", 2, "SLURM_PROCID is not set"),
        ("slurm_task", 2, "usage: salamandra"),
        ("node_check", 2, "usage: megatron_salamandra.node_check"),
        ("report", 0, "the report of --no-such-option is left out"),  # never the reason that a job fails
        ("cluster.job", 2, "unrecognized arguments: --no-such-option"),
    ],
)
def test_modules_that_launchers_start_do_so_too(tmp_path: Path, module: str, code: int, said: str) -> None:
    directory = hostile(tmp_path / "here")
    done = run(directory, sys.executable, "-u", "-m", f"megatron_salamandra.{module}", "--no-such-option")
    assert not (directory / "executed").exists(), (directory / "executed").read_text()
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
