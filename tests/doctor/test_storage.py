"""A directory as a place for runs: kind of file system, locks, quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.doctor import Section, device_checks, render_sections, storage_checks
from megatron_salamandra.doctor.storage import file_system
from megatron_salamandra.node_check import Check, State

TABLE = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /dev/shm rw - tmpfs tmpfs rw
30 22 0:40 / /gpfs/scratch rw - gpfs scratch rw
31 22 0:41 / /gpfs/my\040data rw,nosuid - lustre 10.0.0.1@o2ib:/data rw
not a line
32 - nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/gpfs/scratch/me/runs", "gpfs"),
        ("/gpfs/scratchpad", "ext4"),
        ("/gpfs/my data/run", "lustre"),
        ("/dev/shm", "tmpfs"),
    ],
)
def test_the_kind_of_file_system_is_that_of_the_deepest_mount(path: str, kind: str) -> None:
    found = file_system(Path(path), TABLE)
    assert found is not None
    assert found[0] == kind


def test_a_table_that_says_nothing() -> None:
    assert file_system(Path("/x"), "garbage\n\n") is None


def test_a_directory_that_is_not_there_yet_is_looked_at_above(tmp_path: Path) -> None:
    checks = {check.name: check for check in storage_checks(tmp_path / "runs" / "mine")}
    assert checks["run_dir"].state is State.OK, checks["run_dir"].message
    assert "MiB/s written and synced, locks work" in checks["run_dir"].message
    assert not list(tmp_path.iterdir())


def test_a_directory_in_memory_is_a_warning(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"23 22 0:21 / {tmp_path} rw - tmpfs tmpfs rw\n")
    first = storage_checks(tmp_path, mounts)[0]
    assert (first.state, "gone with" in first.message) == (State.WARNING, True)


def test_devices_are_named_on_any_machine() -> None:
    assert [check.name for check in device_checks()] == ["nccl", "network"]


def test_sections_are_shown_with_their_marks_and_only_failures_are_broken() -> None:
    warned = Section("storage", (Check("quota", State.WARNING, "little left\nask for more"),))
    broken = Section("node", (Check("gpu_state", State.FAILED, "gone"),))
    assert render_sections([warned, broken]).splitlines() == [
        "",
        "Storage",
        "? quota  little left",
        "         ask for more",
        "",
        "Node",
        "! gpu_state  gone",
    ]
    assert (warned.broken, broken.broken) == (False, True)
