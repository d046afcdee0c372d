"""How a configuration problem is described: where the value came from, the key, why, and what would work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE


class ConfigError(UserError):
    """The configuration cannot be used; the message names file, key, value, reason and remedy."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration, before it is known which file to blame.

    Args:
        key: dotted key that is blamed, such as ``parallel.tensor``.
        text: the sentence shown after the file name; starts with the key.
        remedy: one indented line saying what would work; may be empty.
        involved: other dotted keys the sentence compares with; their files are named if they differ.
    """

    key: str
    text: str
    remedy: str = ""
    involved: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class KeyOrigins:
    """Which file (or ``command line``) each dotted key was last set by.

    Two origin maps always compare equal, so that two configurations with the same values are equal
    wherever their values were written.
    """

    by_key: Mapping[str, str] = field(default_factory=dict)
    fallback: str = "configuration"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyOrigins)

    def __hash__(self) -> int:
        return 0

    def find(self, key: str) -> str | None:
        """Origin of ``key``, of the nearest section above it, or of any key below it; None if never set."""
        probe = key
        while probe:
            if probe in self.by_key:
                return self.by_key[probe]
            probe = probe.rpartition(".")[0]
        below = [origin for name, origin in self.by_key.items() if name.startswith(key + ".")]
        return below[-1] if below else None

    def render(self, problem: Problem) -> str:
        """The full message of one problem."""
        origin = self.find(problem.key)
        lines = [f"{origin or self.fallback}: {problem.text}"]
        if problem.remedy:
            lines.append(f"  {problem.remedy}")
        for other in problem.involved:
            other_origin = self.find(other)
            if other_origin is None:
                lines.append(f"  {other} is a default")
            elif other_origin != origin:
                lines.append(f"  {other} was set in {other_origin}")
        return "\n".join(lines)

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """One error telling all problems, one paragraph each."""
        return ConfigError("\n".join(self.render(problem) for problem in problems))
