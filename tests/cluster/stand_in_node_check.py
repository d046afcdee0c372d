"""The node check in the lab, DIRECTORY [options]: the real one, but rates are given, and a host may be at fault.

The lab's hosts share one machine, so that measured rates would say how busy it is. ``SALAMANDRA_LAB_FAULT=KIND@HOST``
makes one host slow or broken, ends its check (dead) or lets it wait for ever (hang).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from megatron_salamandra.node_check import Check, State, one_node
from megatron_salamandra.node_check.__main__ import main

really_run = one_node.run_probes


def run_probes(probes: Sequence[one_node.Probe]) -> list[Check]:
    """Really look at the host, and say of its device what the fault wants."""
    if probes[0].arguments[0] != "device":
        # A full lab machine's disk is nobody's finding here.
        return [
            check for check in really_run(probes) if check.name != "memory" or check.state is State.FAILED
        ]
    kind, _, host = os.environ.get("SALAMANDRA_LAB_FAULT", "").partition("@")
    if os.uname().nodename != host:
        return [Check("matmul", State.OK, "", {"matmul_tflops": (100.0,)})]
    if kind == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        signal.pause()
    if kind == "broken":
        return [Check("matmul", State.FAILED, "a product with the unit matrix is wrong")]
    return [Check("matmul", State.OK, "", {"matmul_tflops": (40.0,)})]


if __name__ == "__main__":
    one_node.run_probes = run_probes
    sys.exit(main())
