"""The script of a job for each profile, word for word: what a change does to it is seen in review.

Write them anew with ``SALAMANDRA_WRITE_GOLDEN=1``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_salamandra.cluster import load_profile, profile_names
from megatron_salamandra.cluster.job_script import JobScript

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", profile_names())
def test_the_script_of_a_profile(name: str) -> None:
    script = JobScript(
        load_profile(name),
        name="my-run",
        nodes=5,
        time="12:00:00",
        lead_seconds=300,
        log=Path("/runs/my run/logs/job-%j.log"),
        directory=Path("/home/me"),
        python="/opt/venv/bin/python",
        arguments=["--profile", "/runs/my run/launch/0001/profile.yaml", "--spares", "1", "config.yaml"],
        sbatch={"account": "mine"},
    ).render()
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("SALAMANDRA_WRITE_GOLDEN"):
        golden.write_text(script)
    assert script == golden.read_text()
