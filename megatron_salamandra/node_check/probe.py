"""One check in a process of its own: ``python -m megatron_salamandra.node_check.probe NAME [ARGUMENT ...]``.

Prints one JSON line for each check that it has done, so that what a process had done before it hung is known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from megatron_salamandra.node_check.gpu_state import check_gpus, check_kernel_log
from megatron_salamandra.node_check.host_state import check_clock, check_memory, check_network
from megatron_salamandra.node_check.result import Check
from megatron_salamandra.node_check.storage import check_run_dir
from megatron_salamandra.node_check.versions import check_packages


def checks_of(name: str, arguments: Sequence[str]) -> Iterable[Check]:
    """The checks that a probe makes.

    Raises:
        KeyError: there is no probe of that name.
    """
    if name == "device":
        from megatron_salamandra.node_check.device_probe import probe_gpu, probe_host

        return probe_gpu(*map(int, arguments)) if arguments else probe_host()
    probes: dict[str, Callable[[], Check]] = {
        "gpu_state": lambda: check_gpus(int(arguments[0]) if arguments else None),
        "xid": check_kernel_log,
        "network": check_network,
        "memory": check_memory,
        "packages": check_packages,
        "clock": lambda: check_clock(arguments[0] if arguments else None),
        "run_dir": lambda: check_run_dir(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None),
    }
    return [probes[name]()]


def main(argv: Sequence[str]) -> None:
    """Make the checks of one probe and print them."""
    for check in checks_of(argv[0], argv[1:]):
        print(json.dumps(asdict(check)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
