"""What is wrong with a run directory before anything was begun."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.run_directory.layout import RunDirectory


class RunDirectoryError(UserError):
    """A run cannot use the directory; the message names it, the reason and the remedy."""

    exit_code = EXIT_USAGE


def unwritable(directory: RunDirectory, error: OSError) -> RunDirectoryError:
    """The error for a directory in which the system refuses to write."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):  # what mkdir says of a file in the place of the directory
        reason = f"{error.filename or directory.path} is not a directory"
    return RunDirectoryError(
        f"run_dir = {directory.path} cannot be written: {reason}\n"
        "  name a directory in a place where you may write and where there is room: run_dir=PATH"
    )
