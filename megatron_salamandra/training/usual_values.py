"""What is usual of a number that is measured in every step, told by its last values. Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

_OF_A_NORMAL = 1.4826
"""Median absolute deviation of a normal distribution, times this, is its standard deviation."""
_LEAST_SPREAD = 0.01
"""Of the median's size: a run that stands still must not make spikes of rounding."""


class UsualValues:
    """The last values of a number, and how far above them another one is.

    Median and median absolute deviation instead of mean and standard deviation: a spike that is among the values moves
    them little (Leys et al. 2013, "Detecting outliers: Do not use standard deviation around the mean").
    """

    def __init__(self, window: int, values: Sequence[float] = ()) -> None:
        """Keep the last ``window`` values, of which ``values`` are the first."""
        self._window = window
        self.values = list(values)[-window:]

    @property
    def enough(self) -> bool:
        """Whether there are values enough to tell: half a window."""
        return 2 * len(self.values) >= self._window

    def add(self, value: float) -> None:
        """One more value; the oldest is forgotten when the window is full."""
        self.values = [*self.values, value][-self._window :]

    def deviations_above(self, value: float) -> float:
        """How many robust standard deviations ``value`` lies above the median; 0 below it or before :attr:`enough`."""
        if not self.enough:
            return 0.0
        middle = median(self.values)
        spread = _OF_A_NORMAL * median(abs(other - middle) for other in self.values)
        spread = max(spread, _LEAST_SPREAD * abs(middle), 1e-12)
        return max((value - middle) / spread, 0.0) if math.isfinite(value) else math.inf
