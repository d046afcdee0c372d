"""What a run directory says of its own past, before anything of it is continued or rewritten."""

from __future__ import annotations

from megatron_salamandra.run_directory.checkpoint_state import CheckpointError
from megatron_salamandra.run_directory.checkpoints import latest_checkpoint
from megatron_salamandra.run_directory.errors import RunDirectoryError
from megatron_salamandra.run_directory.events import read_events
from megatron_salamandra.run_directory.layout import RunDirectory


def last_saved_step(directory: RunDirectory) -> int | None:
    """Step of the newest checkpoint that ``events.jsonl`` tells of; None if the run has saved none since its start."""
    saved: int | None = None
    for event in read_events(directory.events):
        if event.kind == "start":
            saved = None
        elif event.kind in ("resume", "checkpoint"):
            saved = int(event.details.get("step", 0)) or saved
    return saved


def check_checkpoints_are_there(directory: RunDirectory) -> None:
    """Make sure that a run that has saved checkpoints is not taken for one that begins.

    Raises:
        CheckpointError: all of them are gone.
        RunDirectoryError: what stands in the place of ``checkpoints/`` is no directory.
    """
    place = directory.checkpoints
    if not place.is_dir() and (place.exists() or place.is_symlink()):
        what = (
            f"is a link to {place.readlink()}, which is not there"
            if place.is_symlink()
            else "is no directory"
        )
        raise RunDirectoryError(f"{place} {what}\n  mount or mend it, or name another run_dir")
    step = last_saved_step(directory)
    if step is not None and latest_checkpoint(place) is None:
        raise CheckpointError(
            f"{place} holds no complete checkpoint, but this run has saved step {step} ({directory.events})\n"
            "  bring the checkpoints back (were they moved, is their file system mounted?), or start over in "
            "another run_dir"
        )
