"""``salamandra launch`` needs no checkout: it works from an installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG

REPOSITORY = Path(__file__).parents[2]


def test_launch_works_from_an_installed_wheel(tmp_path: Path, blend: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    for name in ("megatron_salamandra", "kernels", "data_prep", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ("--no-deps", "--no-index")
    wheel = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True, timeout=300)
    (built,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run(
        [*pip, "install", *offline, "--target", str(installed), str(built)], check=True, timeout=300
    )
    run = (str(SMALL_CONFIG), f"data.blend={blend}", "run_dir=run", "training.global_batch_size=8")
    options = ("--cluster=leonardo-booster", "--nodes=1", "--time=12:00:00", "--dry-run")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "megatron_salamandra.cli", "launch", *run, *options],
        env={"PATH": "/nowhere", "PYTHONPATH": str(installed), "HOME": os.environ.get("HOME", "/")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    place = tmp_path / "run/launch/0001"
    assert (place / "revision").read_text() == "installed package\n"
    assert "#SBATCH --partition=boost_usr_prod\n" in (place / "job.sh").read_text()
