"""What is wrong with a run directory before anything was begun."""

from __future__ import annotations

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.run_directory.layout import RunDirectory


class RunDirectoryError(UserError):
    """A run cannot use the directory; the message names it, the reason and the remedy."""

    exit_code = EXIT_USAGE


def make_logs(directory: RunDirectory) -> None:
    """Make the directory of the ranks' logs, which all of them open when they have joined.

    Raises:
        RunDirectoryError: they could not write there.
    """
    try:
        directory.logs.mkdir(parents=True, exist_ok=True)
        with directory.rank_log(0).open("ab"):
            pass
    except OSError as error:
        raise unwritable(directory, error) from error


def unwritable(directory: RunDirectory, error: OSError) -> RunDirectoryError:
    """The error for a directory in which the system refuses to write."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):  # what mkdir says of a file in the place of the directory
        reason = f"{error.filename or directory.path} is not a directory"
    elif error.filename is not None and str(error.filename) != str(directory.path):
        reason = f"{error.filename}: {reason}"
    return RunDirectoryError(
        f"run_dir = {directory.path} cannot be written: {reason}\n"
        "  name a directory in a place where you may write and where there is room: run_dir=PATH"
    )
