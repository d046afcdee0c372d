"""What nvidia-smi and the kernel's log say, in the forms that drivers have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from megatron_salamandra.node_check import Check, State
from megatron_salamandra.node_check.gpu_state import check_gpus, check_kernel_log, recent_xids

GOOD = "{}, NVIDIA H100 64GB, 65247, 4, 31, 1980, 0x0000000000000001, 0, [N/A], 550.54.15"


class Driver:
    """A stand-in for nvidia-smi that answers with given text."""

    def __init__(self, gpus: Sequence[str], *, unknown: Sequence[str] = (), code: int = 0) -> None:
        self.gpus, self.unknown, self.code = gpus, unknown, code
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        option, _, fields = command[1].partition("=")
        self.asked.append(fields)
        if option == "--query-remapped-rows":
            return 0, "GPU-1, 0, 0\nGPU-2, No, No\n"
        if option == "--query-compute-apps":
            return 0, "4711, python3\n"
        for name in self.unknown:
            if name in fields.split(","):
                return 2, f'Field "{name}" is not a valid field to query.\n'
        if fields == "index,memory.used":
            return 0, "".join(f"{row.split(', ')[0]}, {row.split(', ')[3]}\n" for row in self.gpus)
        return self.code, "".join(f"{row}\n" for row in self.gpus)


def check(*gpus: str, expected: int | None = None, **more: object) -> Check:
    return check_gpus(expected, Driver(gpus, **more))  # type: ignore[arg-type]


def changed(position: int, value: str) -> str:
    values = GOOD.format(0).split(", ")
    values[position] = value
    return ", ".join(values)


def test_healthy_gpus() -> None:
    found = check(GOOD.format(0), GOOD.format(1), expected=2)
    assert found.state is State.OK
    assert found.message == "2 x NVIDIA H100 64GB, driver 550.54.15"
    assert found.figures["max_clock_mhz"] == (1980.0, 1980.0)
    assert found.figures["device_memory_gib"] == pytest.approx((63.718, 63.718), abs=1e-3)


def test_a_field_that_the_driver_does_not_know_is_left_out() -> None:
    driver = Driver(
        ["0, A, 65247, 4, 31, 1980, 0, 550"],
        unknown=["clocks_throttle_reasons.active", "retired_pages.pending"],
    )
    assert check_gpus(None, driver).state is State.OK
    assert "retired_pages.pending" not in driver.asked[2]


@pytest.mark.parametrize(
    ("gpu", "state", "told"),
    [
        (changed(7, "3"), State.FAILED, "GPU 0: 3 memory errors that ECC could not correct"),
        (changed(8, "Yes"), State.FAILED, "pages of memory wait"),
        (changed(4, "[Unknown Error]"), State.FAILED, "temperature.gpu: [Unknown Error]"),
        (changed(2, "[GPU requires reset]"), State.FAILED, "memory.total: [GPU requires reset]"),
        (changed(4, "91"), State.WARNING, "91 degrees"),
        (
            changed(6, "0x0000000000000048"),
            State.WARNING,
            "hardware slowdown; GPU 0: clocks lowered: too hot",
        ),
        (changed(7, "[N/A]"), State.OK, "1 x"),
        (changed(7, "[Not Supported]"), State.OK, "1 x"),
        (changed(6, "Not Active"), State.OK, "1 x"),
        (
            "Unable to determine the device handle for GPU 0000:4E:00.0: Unknown Error",
            State.FAILED,
            "device handle",
        ),
    ],
)
def test_what_a_gpu_says_of_itself(gpu: str, state: State, told: str) -> None:
    found = check(gpu)
    assert (found.state, told in found.message) == (state, True), found.message


def test_fewer_than_the_run_needs() -> None:
    assert check(GOOD.format(0), expected=4).message.startswith("1 GPUs, and the run needs 4")


def test_a_driver_that_does_not_answer_or_is_not_there() -> None:
    gone = check("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", code=9)
    assert (gone.state, "ended with 9" in gone.message) == (State.FAILED, True)

    def absent(command: Sequence[str]) -> tuple[int, str]:
        raise FileNotFoundError(command[0])

    assert check_gpus(None, absent).state is State.SKIPPED
    assert check_gpus(4, absent).state is State.FAILED


def test_a_gpu_that_somebody_uses_is_told_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_salamandra.node_check.gpu_state.IDLE_SECONDS", 0.0)
    found = check(changed(3, "41000"))
    assert found.state is State.FAILED
    assert "GPU 0 is not idle: 41000 MiB in use by process 4711 (python3)" in found.message


LOG = """[  100.000001] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15
[ 5000.250000] NVRM: Xid (PCI:0000:4e:00): 31, pid=4242, name=python3, Ch 00000008
[90000.000000] NVRM: Xid (PCI:0000:4e:00): 79, pid='<unknown>', GPU has fallen off the bus.
[90001.000000] NVRM: Xid (PCI:0000:4e:00): 79, pid='<unknown>', GPU has fallen off the bus.
"""


def test_faults_of_the_last_day_are_counted() -> None:
    assert recent_xids(LOG, 90010.0) == {("PCI:0000:4e:00", 31): 1, ("PCI:0000:4e:00", 79): 2}
    assert recent_xids(LOG, 100_000.0) == {("PCI:0000:4e:00", 79): 2}
    assert recent_xids("", 1.0) == {}


def test_faults_of_the_device_fail_and_those_of_programs_warn() -> None:
    assert check_kernel_log(lambda command: (0, LOG), lambda: 90010.0).state is State.FAILED
    assert check_kernel_log(lambda command: (0, LOG), lambda: 6000.0 + 80000).state is State.FAILED
    only_program = LOG.splitlines()[1]
    assert check_kernel_log(lambda command: (0, only_program), lambda: 6000.0).state is State.WARNING
    denied = check_kernel_log(
        lambda command: (1, "dmesg: read kernel buffer failed: Operation not permitted")
    )
    assert denied.state is State.SKIPPED
