"""What lies in the current directory is no module of a command: only what is installed, or on PYTHONPATH.

``python -m`` and ``python -c`` put the current directory before everything else, so that a ``yaml.py`` in a directory
of somebody else's files would run in place of the package. With ``-P`` they do not; what Python itself imports before
it finds a module of ours is out of reach.
"""

from __future__ import annotations

import contextlib
import os
import sys

SAFE_PATH = "PYTHONSAFEPATH"
"""Python's own variable, for the processes that this one starts."""


def leave_out_current_directory() -> None:
    """Take it off the path of this process, to which ``python -m`` added it, and off that of its children."""
    os.environ.setdefault(SAFE_PATH, "1")
    if sys.flags.safe_path or not sys.path:
        return
    with contextlib.suppress(FileNotFoundError):  # it may be gone
        if sys.path[0] in ("", os.getcwd()):
            del sys.path[0]
