"""A process that keeps a directory for itself until it is killed: ``python lock_holder.py DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

from megatron_salamandra.foundation.directory_lock import sole_use

if __name__ == "__main__":
    with sole_use(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
