"""An estimate of the electrical energy that the devices of a run have taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BOARD_WATTS = {
    # Maximum power of the whole board by NVIDIA's data sheets. Longest matching name wins; names that stand for boards
    # of several limits are left out.
    "A100-SXM": 400.0,
    "H100 80GB HBM3": 700.0,
    "H100 PCIe": 350.0,
    "H100 NVL": 400.0,
    "H200 NVL": 600.0,
    "H200": 700.0,
    "B200": 1000.0,
}
_DEVICE = re.compile(r"^CUDA over NCCL: (.*?)(?: \(torch |$)")


@dataclass(frozen=True)
class EnergyEstimate:
    """What the devices have taken, or why that cannot be told.

    Attributes:
        kilowatt_hours: None if it is not known.
        device_watts: that were assumed; ``device_hours``: of all ranks.
        text: formula and assumptions, or what is missing.
    """

    kilowatt_hours: float | None
    device_watts: float | None
    device_hours: float | None
    text: str


def estimate_energy(
    environment: Mapping[str, Any], profile: Mapping[str, Any], ranks: int | None, running_seconds: float
) -> EnergyEstimate:
    """Rated power times time.

    Args:
        environment: contents of ``environment.json``.
        profile: of the cluster that the run was launched on; empty if there is none.
        running_seconds: that the ranks ran.
    """
    found = _DEVICE.match(str(environment.get("platform", "")))
    device = found[1] if found else ""
    node = profile.get("node")
    watts = node.get("gpu_watts") if isinstance(node, dict) else None
    source = "the cluster's profile"
    if not isinstance(watts, int | float):
        names = [name for name in _BOARD_WATTS if name in device]
        watts = _BOARD_WATTS[max(names, key=len)] if names else None
        source = "the maker's data sheet"
    hours = ranks * running_seconds / 3600 if ranks else None
    if not device:
        return EnergyEstimate(
            None, None, hours, "not known: no device whose power is known has been recorded"
        )
    if watts is None:
        text = f"not known: the power of {device} is neither in the cluster's profile (node.gpu_watts) nor known here"
        return EnergyEstimate(None, None, hours, text)
    if hours is None:
        return EnergyEstimate(None, float(watts), None, "not known: the number of ranks is not recorded")
    text = (
        f"{ranks:,} devices x {running_seconds / 3600:,.2f} h x {watts:,.0f} W ({device}, full rated power "
        f"by {source}). An upper estimate for the devices alone: hosts, network, storage and cooling come on top."
    )
    return EnergyEstimate(hours * watts / 1000, float(watts), hours, text)
