"""What a callback may answer when a step's gradients are ready and nothing was updated yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Action(IntEnum):
    """What becomes of an update, from the weakest answer to the strongest."""

    APPLY = 0
    """Update the weights."""
    SKIP = 1
    """Leave weights and moments as they are; the samples count as read, and the step as done."""
    ROLL_BACK = 2
    """Leave the weights, load the newest complete checkpoint, and go on from its step."""
    STOP = 3
    """Leave the weights, and end the run as it is before this step."""
    REPEAT = 4
    """Leave the weights, forget the gradients, and compute them again from the same samples."""


@dataclass(frozen=True)
class Decision:
    """An answer and its reason, which events and logs repeat."""

    action: Action
    reason: str = ""
    pass_over_samples: int = 0
    """Of a roll-back: so many samples behind the checkpoint are not trained on this time."""
    past_this_step: bool = False
    """Of a roll-back: no sample from the checkpoint to this step is trained on again."""
    by_chance: bool = False
    """Of a roll-back: it need not come again when the same steps are repeated."""

    @classmethod
    def apply(cls) -> Decision:
        """Update the weights."""
        return cls(Action.APPLY)

    @classmethod
    def skip(cls, reason: str) -> Decision:
        """Leave the weights; the step counts as done."""
        return cls(Action.SKIP, reason)

    @classmethod
    def roll_back(
        cls,
        reason: str,
        *,
        pass_over_samples: int = 0,
        past_this_step: bool = False,
        by_chance: bool = False,
    ) -> Decision:
        """Go back to the newest intact checkpoint, and go on behind samples that may be the cause.

        Args:
            pass_over_samples: so many behind the checkpoint.
            past_this_step: all up to this step's; the samples are passed over, the step is not: it comes again.
            by_chance: the cause lies outside the run, so the same step may be rolled back again.
        """
        return cls(Action.ROLL_BACK, reason, pass_over_samples, past_this_step, by_chance)

    @classmethod
    def repeat(cls, reason: str) -> Decision:
        """Compute the step's gradients again; an answer to :meth:`Callback.before_decision` alone."""
        return cls(Action.REPEAT, reason)

    @classmethod
    def stop(cls, reason: str) -> Decision:
        """End the run before this step."""
        return cls(Action.STOP, reason)


def strongest(decisions: Iterable[Decision]) -> Decision:
    """The strongest of several answers; the first of equal ones; to apply if there are none."""
    return max(decisions, key=lambda decision: decision.action, default=Decision.apply())
