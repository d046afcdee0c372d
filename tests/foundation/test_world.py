"""What a launcher says of the world of ranks is checked before anything waits for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_salamandra.foundation import world
from megatron_salamandra.foundation.world import LaunchError, World, free_port, is_first_task, read_world

RANKS = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29711",
}


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_is_none_that_a_connection_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = tmp_path / "ip_local_port_range"
    monkeypatch.setattr(world, "_PORTS_OF_CONNECTIONS", ranges)
    for first in (32768, 14000):
        ranges.write_text(f"{first}\t60999\n")
        assert all(world._LOWEST_FREE_PORT <= free_port() < first for _ in range(50))
    ranges.write_text("1024\t65535\n")
    assert free_port() >= world._LOWEST_FREE_PORT
    ranges.unlink()
    assert free_port() < 32768


def test_a_free_port_is_not_one_that_is_listened_at(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, free = free_port(), free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", busy))
        listener.listen()
        monkeypatch.setattr(world.random.SystemRandom, "sample", lambda *_: [busy, free])
        assert free_port() == free


def test_a_described_world_is_read() -> None:
    assert read_world(RANKS) == World(1, 1, 2)


def test_without_a_launcher_a_process_is_a_world_of_one() -> None:
    assert read_world({}) == World(0, 0, 1)
    assert read_world({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == World(0, 0, 1)


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_tasks_without_a_world_are_refused(name: str) -> None:
    with pytest.raises(
        LaunchError, match=f"{name} = 4, but WORLD_SIZE is not set.*\n  use salamandra launch"
    ):
        read_world({name: "4"})
    # An allocation of several tasks in which salamandra train starts the ranks.
    assert read_world({**RANKS, name: "4"}).size == 2


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_world_that_lacks_something_is_refused_by_name(name: str) -> None:
    with pytest.raises(LaunchError, match=f"WORLD_SIZE is set, but {name} "):
        read_world({key: value for key, value in RANKS.items() if key != name})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("WORLD_SIZE", text) for text in ("two", "", "0", "-1", "1.5")),
        *(("RANK", text) for text in ("one", "2", "-1")),
        *(("MASTER_PORT", text) for text in ("http", "0", "65536")),
        ("LOCAL_RANK", "first"),
    ],
)
def test_what_is_no_number_of_its_kind_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(LaunchError, match=f"{name} = {text} is not a whole number"):
        read_world({**RANKS, name: text})


def test_rank_0_refuses_a_port_that_another_process_listens_at(busy_port: int) -> None:
    described = {**RANKS, "RANK": "0", "MASTER_PORT": str(busy_port)}
    with pytest.raises(LaunchError, match=f"MASTER_PORT = {busy_port} cannot be listened at"):
        read_world(described)
    assert read_world({**described, "RANK": "1"}).rank == 1
    # torchrun's agent listens there itself.
    assert read_world({**described, "TORCHELASTIC_USE_AGENT_STORE": "True"}).rank == 0


def test_one_task_speaks_for_all() -> None:
    assert is_first_task({})
    assert not is_first_task(RANKS)
    assert is_first_task({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})
    assert not is_first_task({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"})
    assert not is_first_task({"OMPI_COMM_WORLD_RANK": "3"})
