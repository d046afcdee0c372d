"""Which checkpoints may be deleted."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_salamandra.config import CheckpointSection


def steps_to_delete(steps: Sequence[int], policy: CheckpointSection) -> list[int]:
    """Steps whose checkpoints the policy gives up, oldest first.

    Keeps the newest ``keep_last`` and, for ever, multiples of ``keep_every_steps``.
    """
    if policy.keep_last is None:
        return []
    ordered = sorted(steps)
    every = policy.keep_every_steps
    return [step for step in ordered[: -policy.keep_last] if not (every and step % every == 0)]
