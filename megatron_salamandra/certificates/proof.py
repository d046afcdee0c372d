"""The outcome of a proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proof:
    """What a proof found.

    Attributes:
        message: one sentence.
        figures: what was compared, as JSON values: device, bounds, differences.
    """

    passed: bool
    message: str
    figures: Mapping[str, Any]
