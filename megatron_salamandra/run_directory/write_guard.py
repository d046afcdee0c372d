"""Writing that must not end a run: a failure is warned about once, and so is its end."""

from __future__ import annotations

import logging
from collections.abc import Callable


class WriteGuard:
    """Stands around everything that is written to one place, and counts what was lost."""

    def __init__(self, name: str, logger: logging.Logger) -> None:
        """Guard the place that messages call ``name``."""
        self._name = name
        self._logger = logger
        self._lost = 0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._lost > 0

    def forget(self) -> None:
        """Begin anew: what was lost is of no interest any more."""
        self._lost = 0

    def attempt(self, action: Callable[[], object]) -> bool:
        """Write, and say whether it worked. The first failure in a row is a warning, and so is the first success after.

        Any exception counts, because libraries behind an action raise kinds of their own.
        """
        try:
            action()
        except Exception as error:
            self._lost += 1
            if self._lost == 1:
                self._logger.warning(
                    "%s cannot be written, training goes on without it: %s: %s",
                    self._name,
                    type(error).__name__,
                    error,
                )
            return False
        if self._lost:
            self._logger.warning(
                "%s is written again; %d records are missing from it", self._name, self._lost
            )
            self._lost = 0
        return True
