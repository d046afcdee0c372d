"""What one node says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Worth knowing; nobody is left out for it."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to check here, or nothing to check it with."""


@dataclass(frozen=True)
class Check:
    """One check of one node.

    Attributes:
        name: such as ``gpu_state``, ``device``, ``clock``.
        message: what was found, for people; a remedy stands on an indented line of its own.
        figures: what was measured by name with its unit, one value for each device; more is better.
        facts: what must be the same on all nodes of a run.
    """

    name: str
    state: State
    message: str = ""
    figures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Check:
        """The check that ``asdict`` described.

        Raises:
            ValueError: it is not one.
        """
        try:
            return cls(
                str(entry["name"]),
                State(entry["state"]),
                str(entry.get("message", "")),
                {str(key): tuple(map(float, values)) for key, values in entry.get("figures", {}).items()},
                {str(key): str(value) for key, value in entry.get("facts", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a check: {error!r}") from error


@dataclass(frozen=True)
class NodeResult:
    """All checks of one node.

    Attributes:
        host: its name, as the scheduler has it.
        seconds: that the checks took.
    """

    host: str
    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def figures(self) -> dict[str, tuple[float, ...]]:
        """Everything that was measured; where several checks measured the same, one device each, all of it."""
        found: dict[str, tuple[float, ...]] = {}
        for check in self.checks:
            for name, values in check.figures.items():
                found[name] = found.get(name, ()) + values
        return found

    @property
    def facts(self) -> dict[str, str]:
        """What must be the same on all nodes."""
        return {name: value for check in self.checks for name, value in check.facts.items()}

    def of(self, state: State) -> list[Check]:
        """The checks that ended so."""
        return [check for check in self.checks if check.state is state]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> NodeResult:
        """The result that :meth:`to_dict` described.

        Raises:
            ValueError: it is not one.
        """
        try:
            checks = tuple(Check.from_dict(check) for check in entry["checks"])
            return cls(str(entry["host"]), checks, float(entry.get("seconds", 0.0)))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the result of a node: {error!r}") from error
