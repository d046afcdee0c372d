"""A stand-in for a rank: ``python -m pretend_rank DIRECTORY BEHAVIOUR``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType


def main() -> int:
    directory, behaviour = Path(sys.argv[1]), sys.argv[2]
    rank = os.environ["RANK"]

    def leave(number: int, frame: FrameType | None) -> None:
        (directory / f"signal-{rank}").write_text(signal.Signals(number).name)
        sys.exit(75)

    if behaviour != "deaf":  # as an interpreter that is still starting
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGUSR1, leave)
    started = directory / f".started-{rank}"
    started.write_text(os.environ["WORLD_SIZE"])
    started.rename(directory / f"started-{rank}")  # a signal must not leave half of it
    if behaviour == "finish":
        return 0
    if behaviour == "rank-1-fails" and rank == "1":
        return 3
    if behaviour == "rank-1-dies" and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
