"""How long a run has been silent."""

from __future__ import annotations

import time

from megatron_salamandra.cluster.control import ControlFiles

_GAP_SECONDS = 2.0


class Pulse:
    """Watches the heartbeat of one round.

    Only that the file's time changes counts, measured by this process's own steady clock: hosts, file server and
    this machine need not agree on the time, and a clock that is set makes no run look dead.
    """

    def __init__(self, control: ControlFiles) -> None:
        self._control = control
        self._seen = control.last_beat()
        self._since = self._looked = time.monotonic()
        self.began = False
        """Whether there was a beat in this round."""

    def silent_seconds(self) -> float:
        """Since the last beat, or since the start of the round; to be asked often.

        Time in which this process itself did not run, as in a job that is suspended, does not count.
        """
        now = time.monotonic()
        beat = self._control.last_beat()
        if beat is not None and beat != self._seen:
            self._seen, self._since, self.began = beat, now, True
        elif now - self._looked > _GAP_SECONDS:
            self._since += now - self._looked
        self._looked = now
        return now - self._since
