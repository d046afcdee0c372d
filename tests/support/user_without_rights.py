"""What happens to a user who may not read everything, also where tests run as root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_a_user_without_rights(directory: Path) -> Iterator[None]:
    """Root may read everything, so the block runs as another user, who may reach ``directory`` only."""
    if os.geteuid() != 0:
        yield
        return
    # Between the place of temporary files and a test's directory pytest has some that only root may enter.
    for path in (directory, *directory.parents):
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(path.stat().st_mode | 0o555)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
