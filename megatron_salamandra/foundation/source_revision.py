"""Which revision of this project is running."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_revision() -> str | None:
    """Revision of the source tree, with ``+changes`` if files differ; None for an installed package."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # A package installed into somebody else's repository is not at that repository's revision.
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
