"""A run that stops and goes on has the losses of one that did not, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.small_runs import available_ranks, losses, make_blend, small_run, train
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED

_STEPS = 10
_STOP = 5


def prove_resume(directory: Path, say: Callable[[str], None]) -> Proof:
    """Train without a stop, and with one; compare every loss."""
    ranks = min(2, available_ranks())
    blend = make_blend(directory / "data")
    through, stopped = directory / "through", directory / "stopped"
    for run in (through, stopped):
        shutil.rmtree(run, ignore_errors=True)
    steps = f"training.steps={_STEPS}"
    say("  without a stop")
    train(small_run(blend, through, steps), ranks)
    say(f"  to step {_STOP}, and on")
    train(small_run(blend, stopped, steps, f"training.stop_after_steps={_STOP}"), ranks, EXIT_STOPPED)
    train(small_run(blend, stopped, steps), ranks)
    expected, found = losses(through), losses(stopped)
    differing = [step for (step, loss), other in zip(expected, found, strict=False) if (step, loss) != other]
    passed = expected == found and len(expected) == _STEPS
    message = (
        f"{_STEPS} losses are equal to the bit"
        if passed
        else f"{len(expected)} and {len(found)} losses, other from step {min(differing, default=0)} on"
    )
    return Proof(passed, message, {"ranks": ranks, "steps": _STEPS, "differing_steps": differing})
