"""The checks of a node: what hangs, dies or lies on this host is a finding."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_salamandra.node_check import TOKEN, ClockServer, State, check_node, summary
from megatron_salamandra.node_check.host_state import check_clock, check_memory, check_network
from megatron_salamandra.node_check.one_node import Probe, run_probes
from megatron_salamandra.node_check.storage import check_run_dir


def test_this_node_is_fit_and_measured(tmp_path: Path) -> None:
    result = check_node(tmp_path, gpus=0)
    assert {"network", "memory", "packages", "run_dir", "matmul", "copy"} <= {c.name for c in result.checks}
    assert not [
        check
        for check in result.checks
        if check.name in ("packages", "run_dir", "matmul", "copy") and check.state is not State.OK
    ], summary(result)
    assert {"matmul_tflops", "copy_gb_per_s", "write_mib_per_s"} <= result.figures.keys()
    assert result.facts["sources"]
    assert not list(tmp_path.iterdir())  # nothing is left


def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, seconds: float = 20.0) -> Probe:
    module = tmp_path / "odd_probe.py"
    module.write_text(program)
    monkeypatch.setattr("megatron_salamandra.node_check.one_node._PROBE", "odd_probe")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return Probe("matmul", ("device",), seconds)


DONE = 'import json; print(json.dumps({"name": "matmul", "state": "ok"}), flush=True)\n'


def test_a_probe_that_hangs_is_a_finding_and_what_it_had_done_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    odd = probe(tmp_path, monkeypatch, f"{DONE}print('noise', flush=True)\nimport time; time.sleep(600)", 3.0)
    checks = run_probes([odd])
    assert time.monotonic() - started < 60
    assert [(check.name, check.state) for check in checks] == [("matmul", State.OK), ("copy", State.FAILED)]
    assert checks[1].message == "no answer in 3 s"


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("raise RuntimeError('no kernel image')", "no kernel image"),
        ("import os; os.kill(os.getpid(), 11)", "code -11"),
        ("import sys; sys.exit(3)", "nothing was said"),
    ],
)
def test_a_probe_that_dies_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    (check,) = run_probes([probe(tmp_path, monkeypatch, program)])
    assert (check.name, check.state, told in check.message) == ("matmul", State.FAILED, True), check.message


def test_a_directory_that_is_not_the_batch_hosts(tmp_path: Path) -> None:
    assert check_run_dir(tmp_path, "xyz").state is State.FAILED
    (tmp_path / TOKEN).write_text("xyz")
    assert check_run_dir(tmp_path, "xyz").state is State.OK
    assert "another one than on the batch host" in check_run_dir(tmp_path, "abc").message


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
def test_a_full_disk_is_a_finding(tmp_path: Path) -> None:
    found = check_run_dir(tmp_path)
    assert (found.state, "cannot be written" in found.message) == (State.FAILED, True)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_run_dir(tmp_path / "file" / "run").state is State.FAILED


def test_clocks_are_compared() -> None:
    with ClockServer() as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        found = check_clock(address)
        assert found.state is State.OK, found.message
    assert check_clock(address).state is State.WARNING  # nobody answers any more
    assert check_clock("nonsense").state is State.WARNING
    assert check_clock(None).state is State.SKIPPED


@pytest.mark.parametrize(("ahead", "state"), [(10.0, State.WARNING), (-500.0, State.FAILED)])
def test_a_clock_that_is_wrong(monkeypatch: pytest.MonkeyPatch, ahead: float, state: State) -> None:
    monkeypatch.setattr("megatron_salamandra.node_check.host_state._skew", lambda host, port: (ahead, 0.01))
    assert check_clock("other:1").state is state


def test_memory_that_somebody_has_filled(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  500000000 kB\nMemFree: 1 kB\nMemAvailable:   400000 kB\n")
    found = check_memory(meminfo)
    assert (found.state, "0.38 GiB of 476.8 GiB" in found.message) == (State.FAILED, True)
    meminfo.write_text("garbage")
    assert check_memory(meminfo).state is State.SKIPPED


def port(system: Path, device: str, state: str, physical: str, layer: str = "InfiniBand") -> None:
    place = system / "infiniband" / device / "ports" / "1"
    place.mkdir(parents=True)
    for name, value in {
        "state": state,
        "phys_state": physical,
        "rate": "400 Gb/sec",
        "link_layer": layer,
    }.items():
        (place / name).write_text(f"{value}\n")


def card(system: Path, name: str, state: str) -> None:
    (system / "net" / name / "device").mkdir(parents=True)
    (system / "net" / name / "operstate").write_text(f"{state}\n")


def test_the_state_of_network_ports(tmp_path: Path) -> None:
    card(tmp_path, "eth0", "up")
    port(tmp_path, "mlx5_0", "4: ACTIVE", "5: LinkUp")
    port(tmp_path, "mlx5_1", "1: DOWN", "3: Disabled")  # nothing is plugged in
    found = check_network(tmp_path)
    assert (found.state, found.figures["network_ports_up"]) == (State.OK, (2.0,))
    port(tmp_path, "mlx5_2", "2: INIT", "5: LinkUp")
    assert "mlx5_2 port 1 is 2: INIT although its link is up" in check_network(tmp_path).message


def test_a_node_without_any_network_card_that_is_up(tmp_path: Path) -> None:
    card(tmp_path, "eth0", "down")
    assert check_network(tmp_path).state is State.FAILED
    assert check_network(tmp_path / "nothing").state is State.OK
