"""Every layout that this machine's ranks allow trains the same model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.small_runs import available_ranks, losses, make_blend, small_run, train

_STEPS = 10
_BOUND = 1e-4
"""Relative difference of a loss in fp32 between layouts: sums in another order."""
_LAYOUTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "DP2": (2, ()),
    "TP2+SP": (2, ("parallel.tensor=2", "parallel.sequence=true")),
    "PP2": (2, ("parallel.pipeline=2",)),
    "TP2xPP2": (4, ("parallel.tensor=2", "parallel.pipeline=2", "parallel.sequence=true")),
    "DP4": (4, ()),
}


def prove_layouts(directory: Path, say: Callable[[str], None]) -> Proof:
    """Train on one rank and on each layout, and compare the loss of every step."""
    ranks = available_ranks()
    blend = make_blend(directory / "data")
    wanted = {name: layout for name, layout in _LAYOUTS.items() if layout[0] <= ranks}
    if not wanted:
        return Proof(False, f"{ranks} rank: a layout needs two", {"ranks": ranks})
    found = {}
    for name, (size, overrides) in {"one rank": (1, ()), **wanted}.items():
        say(f"  {name}")
        run = directory / name.replace(" ", "-")
        shutil.rmtree(run, ignore_errors=True)
        train(small_run(blend, run, f"training.steps={_STEPS}", *overrides), size)
        found[name] = losses(run)
    expected = found.pop("one rank")
    worst = {name: relative_difference(got, expected) for name, got in found.items()}
    passed = len(expected) == _STEPS and all(difference <= _BOUND for difference in worst.values())
    message = (
        f"{', '.join(found)} differ from one rank by at most {max(worst.values()):.1e} ({_BOUND:.0e} allowed)"
    )
    return Proof(passed, message, {"ranks": ranks, "bound": _BOUND, "relative_difference": worst})


def relative_difference(got: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float]]) -> float:
    """The largest relative difference of two runs' losses; infinite where steps differ or a loss is not finite."""
    if [step for step, _ in got] != [step for step, _ in expected]:
        return math.inf
    differences = [abs(loss - want) / abs(want) for (_, loss), (_, want) in zip(got, expected, strict=True)]
    # A NaN is no greater than any number, so that max() would pass over it.
    return max(differences) if differences and all(map(math.isfinite, differences)) else math.inf
