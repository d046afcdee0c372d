"""Hints for names that were mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE_ENOUGH = 0.6
"""Least similarity, between 0 and 1, of a name that is worth suggesting (difflib's ratio)."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = CLOSE_ENOUGH) -> str | None:
    """The known name that was probably meant, or None if none is close."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def name_hint(name: str, known: Iterable[str], *, of: str = "known") -> str:
    """The second line of an error about an unknown name: the one that was meant, or all there are.

    Args:
        of: what the list is called where no name is close: ``known: a, b``.
    """
    names = list(known)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"{of}: {', '.join(names) or 'none'}"
