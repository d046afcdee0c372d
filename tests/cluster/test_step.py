"""What srun's messages mean."""

from __future__ import annotations

import pytest

from megatron_salamandra.cluster.step import Step


@pytest.mark.parametrize(
    ("said", "not_reached"),
    [
        ("Unable to contact slurm controller (connect failure)", True),
        ("Unable to create step for job 7: Socket timed out on send/recv operation", True),
        ("Timed out waiting for job step to complete", False),  # which ran, and was being ended
        ("node2: task 1: Killed", False),
    ],
)
def test_an_srun_that_could_not_reach_slurm_is_told_from_one_whose_ranks_failed(
    said: str, not_reached: bool
) -> None:
    with Step(["sh", "-c", f"echo 'srun: error: {said}' >&2; exit 1"], {}) as step:
        step.process.wait(timeout=30)
    assert step.slurm_did_not_answer == not_reached
