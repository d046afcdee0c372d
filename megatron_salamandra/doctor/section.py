"""A group of checks of the doctor, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megatron_salamandra.node_check import Check, State

_MARKS = {State.OK: " ", State.SKIPPED: "-", State.WARNING: "?", State.FAILED: "!"}


@dataclass(frozen=True)
class Section:
    """Checks of one subject.

    Attributes:
        name: environment, node, storage, cluster, ...
    """

    name: str
    checks: tuple[Check, ...]

    @property
    def broken(self) -> bool:
        """Whether something must be mended before a run."""
        return any(check.state is State.FAILED for check in self.checks)

    def to_dict(self) -> list[dict[str, Any]]:
        """The checks as JSON values."""
        return [asdict(check) for check in self.checks]


def render_sections(sections: Sequence[Section]) -> str:
    """The sections for people; ``!`` marks what is broken, ``?`` a warning, ``-`` what could not be looked at."""
    lines = []
    for section in sections:
        width = max((len(check.name) for check in section.checks), default=0)
        lines += ["", section.name.capitalize()]
        for check in section.checks:
            first, *rest = check.message.splitlines() or [""]
            lines.append(f"{_MARKS[check.state]} {check.name:<{width}}  {first}")
            lines += [f"  {'':<{width}}  {line}" for line in rest]
    return "\n".join(lines)


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of ``look``; whatever it meets, such as answers of a version that nobody has seen, is a warning."""
    try:
        return list(look())
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return [Check(name, State.WARNING, f"could not be looked at: {reason or type(error).__name__}")]
