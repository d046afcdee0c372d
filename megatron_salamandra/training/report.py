"""What one step has to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measurement:
    """What is known of a step before its update is made; equal on all ranks."""

    step: int
    """Number of the step, from 1."""
    loss: float
    """Mean over the global batch's valid tokens, in nats."""
    grad_norm: float
    """Global L2 norm before clipping."""
    lr: float
    """Learning rate the update would have."""

    @property
    def not_finite(self) -> tuple[str, float] | None:
        """Name and value of what would spoil the weights; None if nothing would."""
        for name, value in (("loss", self.loss), ("gradient norm", self.grad_norm)):
            if not math.isfinite(value):
                return name, value
        return None

    @property
    def finite(self) -> bool:
        """False if the update would spoil the weights."""
        return self.not_finite is None


@dataclass
class StepReport:
    """Measurements of one optimizer step, equal on all ranks unless said otherwise."""

    step: int
    """Number of this step, from 1."""
    loss: float
    """Mean over the global batch's valid tokens, in nats, with the z-loss term if there is one."""
    grad_norm: float
    """Global L2 norm before clipping."""
    lr: float
    """Learning rate of the update."""
    tokens: int
    """Tokens trained on since the beginning of the run, this step included."""
    step_tokens: int
    """Tokens of this step over all ranks."""
    applied: bool = True
    """False if a callback had the update skipped."""
    save_requested: bool = False
    """True if a callback of any rank asked for a checkpoint."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Rank 0's wall time by part: data, forward_backward (with the sums over ranks and the gradient norm, for which the
    rank waits), decide (callbacks before the update), optimizer, step. On CUDA the update is queued and not waited for:
    what is left of it when the next step begins counts to that one's forward_backward."""
    sums: Mapping[str, list[float]] = field(default_factory=dict)
    """What the numbers of :meth:`Callback.to_sum` are over all ranks, by the callback's name; only of those that had
    some."""
    memory_bytes: int = 0
    """Rank 0's peak memory."""
    busy_seconds: float = 0.0
    """This rank's time from the beginning of the step until it first waits for all others; not equal on all ranks."""

    @property
    def tokens_per_second(self) -> float:
        """Throughput of the whole run, without what callbacks take."""
        return self.step_tokens / self.seconds["step"]


@dataclass(frozen=True)
class LanguageScore:
    """Validation of one language, or an average over languages (``macro``, ``micro``)."""

    language: str
    loss: float
    """Mean over predicted tokens, in nats."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Bits per UTF-8 byte of text; comparable between languages and tokenizers."""
    tokens: int
    """Predicted tokens."""
