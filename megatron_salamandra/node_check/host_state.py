"""What the kernel of a node says: network cards, memory, temporary space; and its clock against another host's."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import threading
import time
from pathlib import Path
from types import TracebackType

from megatron_salamandra.node_check.result import Check, State

_GIB = 1024.0**3
_MIB = 1024.0**2
LEAST_SHARED_MEMORY_MIB = 256
"""Of /dev/shm: NCCL and PyTorch's loaders exchange data there; containers have 64 MiB unless told otherwise."""
LEAST_TEMPORARY_MIB = 256
"""Of the directory for temporary files: compiled kernels and sockets."""
LEAST_MEMORY_GIB = 1.0
SKEW_WARNING_SECONDS = 1.0
SKEW_SECONDS = 60.0
"""Beyond it, times in logs and the age of heartbeats say nothing; munge refuses at 300."""
_ASK_SECONDS = 5.0
_ASKS = 5


class ClockServer:
    """Tells the time of this host to whoever connects, while the block runs: the nodes compare theirs with it."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("", 0), _TellTime, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.request_queue_size = 1024  # all nodes of a large job ask at once
        self._server.server_bind()
        self._server.server_activate()
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{socket.gethostname()}:{self._server.server_address[1]}"

    def __enter__(self) -> ClockServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _TellTime(socketserver.StreamRequestHandler):
    timeout = _ASK_SECONDS

    def handle(self) -> None:
        while self.rfile.readline():
            self.wfile.write(f"{time.time()!r}\n".encode())


def check_clock(server: str | None) -> Check:
    """The clock of this node against that of ``HOST:PORT``, where a :class:`ClockServer` answers."""
    if server is None:
        return Check("clock", State.SKIPPED, "nobody to compare with")
    host, _, port = server.rpartition(":")
    try:
        skew, error = _skew(host, int(port))
    except (OSError, ValueError) as problem:
        return Check("clock", State.WARNING, f"{server} does not tell its time: {problem}")
    message = f"{skew:+.3f} s against {host}, known to {error:.3f} s"
    if abs(skew) - error > SKEW_SECONDS:
        return Check("clock", State.FAILED, f"{message}\n  its time service is not running")
    return Check("clock", State.WARNING if abs(skew) - error > SKEW_WARNING_SECONDS else State.OK, message)


def _skew(host: str, port: int) -> tuple[float, float]:
    """Seconds that this clock is ahead, and how far off that may be: half of the fastest of some round trips."""
    best = (0.0, float("inf"))
    with socket.create_connection((host, port), _ASK_SECONDS) as link, link.makefile("rwb") as stream:
        for _ in range(_ASKS):
            before, started = time.time(), time.perf_counter()
            stream.write(b"?\n")
            stream.flush()
            theirs = float(stream.readline())
            trip = time.perf_counter() - started
            if trip / 2 < best[1]:
                best = (before + trip / 2 - theirs, trip / 2)
    return best


def check_memory(meminfo: Path = Path("/proc/meminfo"), shared: Path = Path("/dev/shm")) -> Check:
    """Free memory of the host, and space where processes exchange data and keep temporary files."""
    try:
        lines = meminfo.read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        total, free = (int(fields[name].split()[0]) / 1024**2 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError) as error:
        return Check("memory", State.SKIPPED, f"{meminfo} is not readable: {error}")
    problems: list[str] = []
    warnings: list[str] = []
    if free < LEAST_MEMORY_GIB:
        problems.append(f"{free:.2f} GiB of {total:.1f} GiB are free")
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    for path, least, found in (
        (shared, LEAST_SHARED_MEMORY_MIB, problems),
        (temporary, LEAST_TEMPORARY_MIB, warnings),
    ):
        try:
            room = shutil.disk_usage(path).free / _MIB
        except OSError as error:
            warnings.append(f"{path}: {error.strerror}")
            continue
        if room < least:
            found.append(f"{path} has {room:.0f} MiB free, less than {least}")
    state = State.FAILED if problems else State.WARNING if warnings else State.OK
    message = "; ".join([*problems, *warnings]) or f"{free:.1f} GiB of {total:.1f} GiB are free"
    return Check("memory", state, message, {"free_memory_gib": (free,)})


def check_network(system: Path = Path("/sys/class")) -> Check:
    """State of the network cards: Ethernet and others as the kernel lists them, and InfiniBand ports."""
    cards = _cards(system / "net")
    ports, broken = _ports(system / "infiniband")
    cxi = sorted(path.name for path in _entries(system / "cxi"))
    up = [name for name, state in cards.items() if state == "up"]
    if not up and not ports and cards:
        broken.append(f"no network card is up: {', '.join(f'{n} {s}' for n, s in cards.items())}")
    parts = [f"{name} {state}" for name, state in cards.items()] + ports + [f"{name} (CXI)" for name in cxi]
    # As facts: cards differ from host to host where one is broken, and not in a healthy cluster.
    figures = {"network_ports_up": (float(len(up) + len([p for p in ports if "ACTIVE" in p])),)}
    return Check(
        "network", State.FAILED if broken else State.OK, "; ".join(broken or parts) or "no cards", figures
    )


def _cards(directory: Path) -> dict[str, str]:
    """State of each card that is a device; loopback and virtual ones (bridges of containers) are left out, unless
    there are no others."""
    states = {path.name: _read(path / "operstate") for path in _entries(directory) if path.name != "lo"}
    real = {name: state for name, state in states.items() if (directory / name / "device").exists()}
    # veth and the like tell "up"; some drivers know nothing better than "unknown" and work.
    chosen = real or states
    return {name: "up" if state == "unknown" else state for name, state in chosen.items()}


def _ports(directory: Path) -> tuple[list[str], list[str]]:
    """What the InfiniBand (or RoCE) ports say, and which of them are broken."""
    told, broken = [], []
    for device in _entries(directory):
        for port in _entries(device / "ports"):
            name = f"{device.name} port {port.name}"
            state, physical = _read(port / "state"), _read(port / "phys_state")
            rate, layer = _read(port / "rate"), _read(port / "link_layer")
            told.append(f"{name} {state.partition(': ')[2] or state} {rate}")
            # A port without a cable is DOWN and Disabled or Polling on many healthy nodes; one that trained
            # its link but got no address is not.
            if layer == "InfiniBand" and "LinkUp" in physical and "ACTIVE" not in state:
                broken.append(f"{name} is {state} although its link is up")
    return told, broken


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"
