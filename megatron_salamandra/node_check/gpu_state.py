"""What the NVIDIA driver says of the GPUs of a node, and what the kernel's log says of their faults."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from megatron_salamandra.foundation.commands import run_command
from megatron_salamandra.node_check.result import Check, State

_FIELDS = (
    "index",
    "name",
    "memory.total",
    "memory.used",
    "temperature.gpu",
    "clocks.max.sm",
    "clocks_throttle_reasons.active",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
    "driver_version",
)
"""Of ``nvidia-smi --query-gpu``; one that a driver does not know is left out."""
_REMAPPED = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")

HOT_CELSIUS = 85
"""At rest; training comes on top."""
IDLE_MIB = 2048
"""Memory in use on a GPU that nobody uses: the driver itself takes up to some hundred MiB."""
IDLE_SECONDS = 10.0
"""That ranks of an earlier round may take to leave."""
_SLOWED = {0x8: "hardware slowdown", 0x40: "too hot", 0x80: "power brake"}
"""Bits of the throttle reasons that a healthy GPU never has (nvml.h, nvmlClocksThrottleReasons)."""

HARDWARE_XIDS = {48, 64, 74, 79, 92, 94, 95, 119, 120, 140}
"""Faults of the device, by NVIDIA's table of Xid errors; most others are the program's."""
XID_AGE_SECONDS = 24 * 3600.0
_XID = re.compile(r"\[\s*(?P<at>\d+\.\d+)\].*NVRM: Xid \((?P<place>[^)]*)\): (?P<number>\d+)")
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
_NO_VALUE = re.compile(r"\[?(N/A|Not Supported|Not Available|Insufficient Permissions|No data)\]?", re.I)
_MIB = 1024.0

Run = Callable[[Sequence[str]], "tuple[int, str]"]
"""Runs a command; gives its code and everything it printed. Raises OSError where there is no such command."""


def ask(command: Sequence[str], seconds: float = 15.0) -> tuple[int, str]:
    """Run a command of this machine; one that hangs counts as ended with 124.

    Raises:
        OSError: there is no such command.
    """
    done = run_command(command, seconds, merged=True)
    return (
        (124, f"{command[0]}: no answer in {seconds:g} s") if done.code is None else (done.code, done.output)
    )


def check_gpus(expected: int | None, run: Run = ask) -> Check:
    """GPUs of this node: how many, and each one's memory, clocks, temperature, faults, and whether it is idle.

    Args:
        expected: how many a run needs; None takes what there is.
    """
    try:
        fields, rows = _query("--query-gpu", _FIELDS, run)
    except FileNotFoundError:
        if expected:
            return Check(
                "gpu_state", State.FAILED, f"nvidia-smi is not here, and the run needs {expected} GPUs"
            )
        return Check("gpu_state", State.SKIPPED, "no nvidia-smi: a node without NVIDIA GPUs")
    except (OSError, ValueError) as error:
        return Check("gpu_state", State.FAILED, str(error))
    gpus = [dict(zip(fields, row, strict=False)) for row in rows]
    problems, warnings = [], []
    if expected is not None and len(gpus) < expected:
        problems.append(f"{len(gpus)} GPUs, and the run needs {expected}")
    for number, gpu in enumerate(gpus):
        where = f"GPU {gpu.get('index', number)}"
        bad, odd = _look_at(gpu)
        problems += [f"{where}: {text}" for text in bad]
        warnings += [f"{where}: {text}" for text in odd]
    problems += _remapped_rows(run)
    problems += _busy(run, gpus)
    state = State.FAILED if problems else State.WARNING if warnings else State.OK
    names = sorted({gpu.get("name", "?") for gpu in gpus})
    figures = {
        "device_memory_gib": tuple((number_of(gpu.get("memory.total", "")) or 0.0) / _MIB for gpu in gpus),
        "max_clock_mhz": tuple(
            clock for gpu in gpus if (clock := number_of(gpu.get("clocks.max.sm", ""))) is not None
        ),
    }
    facts = {"gpu": ", ".join(names)} if names else {}
    drivers = sorted({gpu["driver_version"] for gpu in gpus if "driver_version" in gpu})
    healthy = f"{len(gpus)} x {', '.join(names)}, driver {', '.join(drivers) or 'unknown'}"
    message = "; ".join([*problems, *warnings]) or healthy
    return Check("gpu_state", state, message, figures, facts)


def check_kernel_log(run: Run = ask, uptime: Callable[[], float] = time.monotonic) -> Check:
    """Faults of GPUs of the last day in the kernel's log, where it may be read."""
    try:
        code, text = run(["dmesg"])
    except OSError as error:
        return Check("xid", State.SKIPPED, f"no dmesg: {error}")
    if code != 0:
        return Check("xid", State.SKIPPED, "the kernel's log may not be read")
    found = recent_xids(text, uptime())
    hardware = {key: count for key, count in found.items() if key[1] in HARDWARE_XIDS}
    told = ", ".join(f"Xid {number} at {place} ({count} times)" for (place, number), count in found.items())
    if hardware:
        return Check("xid", State.FAILED, f"{told} in the last day: faults of the device")
    return Check("xid", State.WARNING if found else State.OK, f"{told} in the last day" if found else "none")


def recent_xids(kernel_log: str, now: float) -> dict[tuple[str, int], int]:
    """How often each Xid error came in the last day, by place and number.

    Args:
        now: seconds since the machine started, as in the log.
    """
    found: dict[tuple[str, int], int] = {}
    for line in _XID.finditer(kernel_log):
        if now - float(line["at"]) <= XID_AGE_SECONDS:
            key = (line["place"], int(line["number"]))
            found[key] = found.get(key, 0) + 1
    return found


def number_of(value: str) -> float | None:
    """The number that a value of nvidia-smi begins with; None for what the device does not tell."""
    found = re.match(r"-?\d+(\.\d+)?", value.strip())
    return float(found[0]) if found else None


def _query(option: str, fields: Sequence[str], run: Run) -> tuple[list[str], list[list[str]]]:
    """Fields that the driver knows, and their values for each GPU.

    Raises:
        ValueError: the driver answers with an error.
        OSError: there is no nvidia-smi.
    """
    wanted = list(fields)
    while True:
        code, text = run(["nvidia-smi", f"{option}={','.join(wanted)}", "--format=csv,noheader,nounits"])
        unknown = _UNKNOWN_FIELD.search(text)
        if unknown and unknown[1] in wanted and len(wanted) > 1:
            wanted.remove(unknown[1])
            continue
        lines = [line for line in text.splitlines() if line.strip()]
        if code != 0:
            raise ValueError(f"nvidia-smi ended with {code}: {' '.join(lines[-3:]) or 'nothing was said'}")
        rows = [[value.strip() for value in line.split(",")] for line in lines]
        strange = [line for line, row in zip(lines, rows, strict=True) if len(row) != len(wanted)]
        if strange:
            # A GPU that fell off the bus is told in a line of words among the others.
            raise ValueError(f"nvidia-smi says: {strange[0].strip()}")
        return wanted, rows


def _look_at(gpu: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What is broken, and what is odd, of one GPU."""
    bad, odd = [], []
    for name, value in gpu.items():
        if number_of(value) is None and name not in ("name", "retired_pages.pending"):
            broken = re.search(r"unknown error|requires reset|is lost|ERR!", value, re.I)
            if broken and not _NO_VALUE.fullmatch(value):
                bad.append(f"{name}: {value}")
    if (errors := number_of(gpu.get("ecc.errors.uncorrected.volatile.total", ""))) is not None and errors > 0:
        bad.append(f"{errors:.0f} memory errors that ECC could not correct")
    if gpu.get("retired_pages.pending", "").lower() == "yes":
        bad.append("pages of memory wait for being retired: it needs a reset")
    try:
        reasons = int(gpu.get("clocks_throttle_reasons.active", "0"), 16)
    except ValueError:
        reasons = 0
    odd += [f"clocks lowered: {text}" for bit, text in _SLOWED.items() if reasons & bit]
    if (degrees := number_of(gpu.get("temperature.gpu", ""))) is not None and degrees >= HOT_CELSIUS:
        odd.append(f"{degrees:.0f} degrees Celsius at rest")
    return bad, odd


def _remapped_rows(run: Run) -> list[str]:
    try:
        fields, rows = _query("--query-remapped-rows", _REMAPPED, run)
    except (OSError, ValueError):
        return []  # a GPU or a driver without
    found = []
    for number, row in enumerate(rows):
        values = dict(zip(fields, row, strict=False))
        if values.get("remapped_rows.failure", "").lower() in ("1", "yes"):
            found.append(f"GPU {number}: a row of memory could not be replaced")
        elif values.get("remapped_rows.pending", "").lower() in ("1", "yes"):
            found.append(f"GPU {number}: a row of memory waits for being replaced: it needs a reset")
    return found


def _busy(run: Run, gpus: list[dict[str, str]]) -> list[str]:
    """GPUs that somebody uses, and still does after some seconds."""
    end = time.monotonic() + IDLE_SECONDS
    while True:
        used = {
            gpu.get("index", str(number)): amount
            for number, gpu in enumerate(gpus)
            if (amount := number_of(gpu.get("memory.used", ""))) is not None and amount > IDLE_MIB
        }
        if not used or time.monotonic() > end:
            break
        time.sleep(1.0)
        try:
            fields, rows = _query("--query-gpu", ("index", "memory.used"), run)
        except (OSError, ValueError):
            break
        gpus = [dict(zip(fields, row, strict=False)) for row in rows]
    if not used:
        return []
    who = ""
    try:
        _, rows = _query("--query-compute-apps", ("pid", "process_name"), run)
        who = f" by {', '.join(f'process {row[0]} ({row[1]})' for row in rows)}" if rows else ""
    except (OSError, ValueError):
        pass
    return [f"GPU {index} is not idle: {amount:.0f} MiB in use{who}" for index, amount in used.items()]
