"""Which sources this installation was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

REVISION_FILE = _PACKAGE / "revision.txt"
"""Written into the sources before an image is built from them (launch/container/install.py): it has no repository."""


def source_revision() -> str | None:
    """The git revision of these sources, with ``+changes`` if files differ from it.

    Of the repository they lie in; of :data:`REVISION_FILE` where they are installed; None if neither knows.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # A package installed into somebody else's repository is not at that repository's revision.
        git("ls-files", "--error-unmatch", "foundation/source_revision.py")
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return REVISION_FILE.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
