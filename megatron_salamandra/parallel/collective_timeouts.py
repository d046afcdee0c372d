"""How long a collective waits for the other ranks: long until the first step is done, short after it.

Until then a rank may be behind a cold file system or a compiler while the others wait for it. In a step nobody takes
long, and whoever waits for minutes waits for a rank that does not come.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from megatron_salamandra.hangs import PROGRESS

FOR_EVER = datetime.timedelta(days=7)
LATER_SECONDS = 300.0
"""So much later than a rank's own watchdog the long time-out is: the watchdog names who is late, and this does not."""
_USUAL_STEPS = 20
"""The short time-out is never less than so many usual steps."""
_CHANGE = 1.25
"""A time-out that would change by less is left as it is."""


def long_timeout(seconds: float | None) -> datetime.timedelta:
    """The time-out until the first step is done, and in what has a time of its own.

    Args:
        seconds: after which a rank's watchdog ends it there; None is for ever.
    """
    return FOR_EVER if seconds is None else datetime.timedelta(seconds=seconds + LATER_SECONDS)


class CollectiveTimeouts:
    """The time-out of the collectives that this rank begins from now on, over all of its process groups.

    A collective that is under way keeps the one that it began with.

    Args:
        long_seconds: until the first step is done, and in saves, validation and loading; as for :func:`long_timeout`.
        short_seconds: otherwise; None is as long.
    """

    def __init__(self, long_seconds: float | None, short_seconds: float | None) -> None:
        self._long = long_timeout(long_seconds)
        self._short_seconds = short_seconds
        self._now = self._long  # as the groups were made
        self._groups: list[Any] = []
        self._backends: list[Any] = []

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow :data:`PROGRESS` while the block runs."""
        PROGRESS.when_patience_changes = self.adapt
        try:
            yield
        finally:
            PROGRESS.when_patience_changes = None

    @property
    def wanted(self) -> datetime.timedelta:
        """The time-out for where this rank is now."""
        if PROGRESS.others_may_be_long or self._short_seconds is None:
            return self._long
        usual = _USUAL_STEPS * PROGRESS.usual_step_seconds
        return min(self._long, datetime.timedelta(seconds=max(self._short_seconds, usual)))

    def adapt(self) -> None:
        """Set the time-out that is wanted, where it is another one; a few microseconds."""
        wanted = self.wanted
        if self._now / _CHANGE < wanted < self._now * _CHANGE:
            return
        groups: list[Any] = list(dist.distributed_c10d._world.pg_map)
        if groups != self._groups:
            self._groups, self._backends = groups, [_backend(group) for group in groups]
        for backend in self._backends:
            # What torch.distributed's own setter calls, which looks for the backend each time.
            backend._set_default_timeout(wanted)
        self._now = wanted


def _backend(group: Any) -> Any:
    (device, *_) = group._device_types
    return group._get_backend(device)


def is_timeout(error: Exception) -> bool:
    """Whether a collective has given up waiting, as gloo and NCCL say it."""
    text = str(error).lower()
    if not isinstance(error, RuntimeError):  # torch's own errors are RuntimeErrors
        return False
    return "timed out waiting" in text or ("timeout" in text and ("nccl" in text or "watchdog" in text))
