"""The node check on a real SLURM of several hosts: one that is unfit is left out, and the run ends on the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slurm_lab import Lab, batch_script, wait_until
from supervised_run import LabJob

pytestmark = pytest.mark.cluster


class CheckedRun(LabJob):
    """A supervised run of two stand-in ranks on two of the job's nodes, which are checked first."""

    def __init__(
        self, lab: Lab, directory: Path, fault: str, *, allocated: int, answer_seconds: int = 90
    ) -> None:
        self.lab, self.directory, self.log = lab, directory / "run", directory / "job.log"
        self.directory.mkdir()
        program = f"{Path(__file__).parent / 'supervise_stand_in.py'} {self.directory} 2 --steps 5"
        script = batch_script(
            directory / "job.sh",
            program,
            self.log,
            f"--nodes={allocated}",
            "--ntasks-per-node=1",
            "--cpus-per-task=1",
            "--no-kill",
            "--requeue",
            "--time=0:30:00",
        )
        exports = f"--export=ALL,SALAMANDRA_LAB_CHECK={answer_seconds},SALAMANDRA_LAB_FAULT={fault}"
        self.job = lab.submit(script, exports)

    def end(self, seconds: float = 240.0) -> str:
        return super().end(seconds)

    def rounds(self) -> list[dict[str, object]]:
        path = self.directory / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def result(self, host: str) -> dict[str, object]:
        contents: dict[str, object] = json.loads(
            (self.directory / "node-check/0001" / f"{host}.json").read_text()
        )
        return contents


def test_fit_nodes_are_asked_and_train(lab: Lab, tmp_path: Path) -> None:
    run = CheckedRun(lab, tmp_path, "", allocated=3)
    assert run.end() == "COMPLETED", run.text()
    (only,) = run.rounds()
    assert (only["hosts"], only["findings"]) == (["node1", "node2"], []), run.text()
    assert {run.result(host)["host"] for host in ("node1", "node2", "node3")} == {"node1", "node2", "node3"}


@pytest.mark.parametrize(
    ("fault", "answer_seconds", "told"),
    [
        ("broken", 90, "node2 failed: matmul: a product with the unit matrix is wrong"),
        ("slow", 90, "node2 slow: matmul_tflops is 40, 0.40 of the median of the nodes (100; at least 0.85)"),
        ("dead", 90, "node2 silent: no answer to the node check"),
        ("hang", 45, "node2 silent: no answer to the node check"),
    ],
)
def test_an_unfit_node_is_left_out_and_the_spare_one_trains(
    lab: Lab, tmp_path: Path, fault: str, answer_seconds: int, told: str
) -> None:
    run = CheckedRun(lab, tmp_path, f"{fault}@node2", allocated=3, answer_seconds=answer_seconds)
    assert run.end() == "COMPLETED", run.text()
    (only,) = run.rounds()
    assert (only["hosts"], only["findings"]) == (["node1", "node3"], [told]), run.text()
    assert f"left out: {told}" in run.text()
    assert lab.field(run.job, "Restarts") == "0"


def test_without_a_spare_node_a_broken_one_sends_the_job_elsewhere_through_the_queue(
    lab: Lab, tmp_path: Path
) -> None:
    run = CheckedRun(lab, tmp_path, "broken@node2", allocated=2)
    assert run.end() == "COMPLETED", run.text()
    first, second = run.rounds()
    assert (first["hosts"], first["decision"]["action"]) == ([], "requeue")  # type: ignore[index]
    assert second["hosts"] == ["node1", "node3"], run.text()
    assert "2 nodes are needed, and fewer are fit" in run.text()


def test_without_a_spare_node_a_slow_one_trains_and_is_named(lab: Lab, tmp_path: Path) -> None:
    run = CheckedRun(lab, tmp_path, "slow@node2", allocated=2)
    assert run.end() == "COMPLETED", run.text()
    (only,) = run.rounds()
    assert only["hosts"] == ["node1", "node2"]
    assert "kept, because there is no spare node: node2 slow" in run.text()


def test_a_node_that_sees_another_run_directory_is_left_out(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    lab.on("node2", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "mount"))
    try:
        run = CheckedRun(lab, tmp_path / "mount", "", allocated=3)
        assert run.end() == "COMPLETED", run.text()
        (only,) = run.rounds()
        assert only["hosts"] == ["node1", "node3"], run.text()
        assert "is another one than on the batch host" in run.text()
    finally:
        lab.on("node2", "umount", str(tmp_path / "mount"))


def test_a_node_whose_shared_memory_is_full_is_left_out(lab: Lab, tmp_path: Path) -> None:
    lab.on("node2", "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm")
    try:
        run = CheckedRun(lab, tmp_path, "", allocated=3)
        assert run.end() == "COMPLETED", run.text()
        (only,) = run.rounds()
        assert only["hosts"] == ["node1", "node3"], run.text()
        assert "node2 failed: memory: /dev/shm has 64 MiB free, less than 256" in run.text()
    finally:
        lab.on("node2", "umount", "/dev/shm")


def test_a_node_that_dies_during_the_check_is_left_out(lab: Lab, tmp_path: Path) -> None:
    run = CheckedRun(lab, tmp_path, "hang@node2", allocated=3, answer_seconds=60)
    wait_until(lambda: (run.directory / "node-check/0001/node3.json").exists(), 90, run.text)
    lab.call("off", "node2")
    try:
        assert run.end() == "COMPLETED", run.text()
        assert [entry["hosts"] for entry in run.rounds()][-1] == ["node1", "node3"], run.text()
        assert lab.field(run.job, "Restarts") == "0"
    finally:
        lab.call("on", "node2")
        wait_until(
            lambda: lab.on("ctl", "sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip() == "3", 60
        )
