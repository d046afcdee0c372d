"""Owns a run directory until it is told to end: ``python run_owner.py RUN [no-locks] [helper]``.

Prints ``owned`` or the reason why not. With ``helper`` a forked process that ends two seconds after its parent
inherits what the parent has open, as a checkpoint's writers do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any

from megatron_salamandra.run_directory import RunDirectory, RunDirectoryError, own


def no_locks(*arguments: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def main() -> None:
    if "no-locks" in sys.argv:
        fcntl.flock = no_locks
    try:
        with own(RunDirectory(Path(sys.argv[1]))):
            parent = os.getpid()
            if "helper" in sys.argv and os.fork() == 0:
                while os.getppid() == parent:
                    time.sleep(0.05)
                time.sleep(2)
                os._exit(0)
            print("owned", flush=True)
            sys.stdin.readline()
    except RunDirectoryError as error:
        print(error, flush=True)


if __name__ == "__main__":
    main()
