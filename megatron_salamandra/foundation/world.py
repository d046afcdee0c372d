"""The world of ranks that a launcher describes in the environment, checked before anything waits for it."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE

# Number of tasks, and number of this one, in the variables of launchers that do not speak torch's language.
_TASKS = {
    "SLURM_NTASKS": "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "PALS_NRANKS": "PALS_RANKID",
}
_HIGHEST_PORT = 65535
_LOWEST_FREE_PORT = 12000
_PORTS_OF_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class LaunchError(UserError):
    """The environment does not describe a world that this process could join."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class World:
    """Which of how many ranks this process is; ranks count from 0."""

    rank: int
    local_rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """True for the rank that speaks for all."""
        return self.rank == 0


def is_first_task(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for all, also where the environment describes no world."""
    if "RANK" in environment:
        return environment["RANK"].strip() == "0"
    return all(environment.get(number, "0").strip() == "0" for number in _TASKS.values())


def read_world(environment: Mapping[str, str] = os.environ) -> World:
    """The world that ``torchrun``, a SLURM job of ours or ``salamandra train`` describe; a world of one without any.

    Raises:
        LaunchError: several tasks without a world, a variable is missing or no number, or, on rank 0, the port at
            which ranks meet is in use.
    """
    if "WORLD_SIZE" not in environment:
        _refuse_tasks_without_a_world(environment)
        return World(0, 0, 1)
    size = _number(environment, "WORLD_SIZE", 1)
    rank = _number(environment, "RANK", 0, size - 1)
    local_rank = _number(environment, "LOCAL_RANK", 0) if "LOCAL_RANK" in environment else 0
    if "MASTER_ADDR" not in environment:
        raise _missing("MASTER_ADDR", "the host of rank 0")
    port = _number(environment, "MASTER_PORT", 1, _HIGHEST_PORT)
    if rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # else torchrun listens there
        _refuse_a_busy_port(port)
    return World(rank, local_rank, size)


def _refuse_tasks_without_a_world(environment: Mapping[str, str]) -> None:
    for name in _TASKS:
        text = environment.get(name, "")
        if text.isdecimal() and int(text) > 1:
            raise LaunchError(
                f"{name} = {text}, but WORLD_SIZE is not set: each of the {text} tasks would train alone, "
                "all in one run_dir\n  use salamandra launch, or set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and "
                "MASTER_PORT for each task; in an allocation without srun: salamandra train"
            )


def _number(environment: Mapping[str, str], name: str, least: int, most: int | None = None) -> int:
    if name not in environment:
        raise _missing(
            name, "this process's number from 0" if name == "RANK" else "a free port of rank 0's host"
        )
    text = environment[name]
    bounds = f"at least {least}" if most is None else f"{least} to {most}"
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        raise LaunchError(f"{name} = {text} is not a whole number, {bounds}\n  {_REMEDY}")
    return value


_REMEDY = (
    "start ranks with salamandra train, torchrun, or salamandra launch on a cluster, which set all of these"
)


def _missing(name: str, meaning: str) -> LaunchError:
    return LaunchError(f"WORLD_SIZE is set, but {name} ({meaning}) is not\n  {_REMEDY}")


def free_port() -> int:
    """A port at which nobody listens, for ranks that will do so some seconds later.

    It is none of those that the system gives to connections, of which each pair of ranks makes many: one of them would
    take it until then.
    """
    for port in random.SystemRandom().sample(range(_LOWEST_FREE_PORT, _first_port_of_connections()), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("", port))
            return port
    raise LaunchError(
        "no free port was found\n  set MASTER_ADDR and MASTER_PORT, and start ranks with torchrun"
    )


def _first_port_of_connections() -> int:
    try:
        first = int(_PORTS_OF_CONNECTIONS.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768
    # Where connections have nearly all ports, there is no better choice.
    return first if first >= _LOWEST_FREE_PORT + 1000 else _HIGHEST_PORT


def _refuse_a_busy_port(port: int) -> None:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as probe:
        # As torch will listen there: on all addresses, and at once after an earlier run's sockets.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return  # no such family here after all; torch will find another
            raise LaunchError(
                f"MASTER_PORT = {port} cannot be listened at on {socket.gethostname()}: {error.strerror}\n"
                "  set MASTER_PORT to a free port, the same for all ranks; another run may be using this one"
            ) from error
