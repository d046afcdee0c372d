"""The unit in which a table or an axis counts tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenUnit:
    """So many tokens; ``short`` for headings (nothing for single tokens), ``name`` for axes."""

    tokens: int
    short: str
    name: str

    def text(self, tokens: float, decimals: int) -> str:
        """A number of tokens in this unit; single tokens are whole."""
        return f"{tokens / self.tokens:,.{decimals if self.tokens > 1 else 0}f}"

    def heading(self, column: str) -> str:
        """A column's name with the unit behind it."""
        return f"{column} ({self.short})" if self.short else column


_UNITS = (
    TokenUnit(10**12, "T", "trillion tokens"),
    TokenUnit(10**9, "B", "billion tokens"),
    TokenUnit(10**6, "M", "million tokens"),
    TokenUnit(1, "", "tokens"),
)


def token_unit(amounts: Iterable[int], least: float) -> TokenUnit:
    """The largest unit in which no amount is below ``least``; amounts of 0 do not count."""
    smallest = min((amount for amount in amounts if amount), default=0)
    return next((unit for unit in _UNITS if smallest >= least * unit.tokens), _UNITS[-1])
