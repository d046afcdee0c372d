"""Which checkpoints may be deleted, and deleting them. Never imports torch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from megatron_salamandra.config import CheckpointSection
from megatron_salamandra.run_directory import (
    CheckpointError,
    checkpoints_in_use,
    complete_checkpoints,
    delete_checkpoint,
    read_marks,
    step_of,
    verify_checkpoint,
)

LOGGER = logging.getLogger("salamandra")


def steps_to_delete(
    steps: Sequence[int], policy: CheckpointSection, marked: Collection[int] = ()
) -> list[int]:
    """Steps whose checkpoints the policy gives up, oldest first.

    Keeps the newest ``keep_last`` and, for ever, multiples of ``keep_every_steps`` and what is marked.
    """
    if policy.keep_last is None:
        return []
    ordered = sorted(steps)
    every = policy.keep_every_steps
    return [
        step
        for step in ordered[: -policy.keep_last]
        if not (every and step % every == 0) and step not in marked
    ]


def prune(root: Path, policy: CheckpointSection, *, dry_run: bool = False) -> list[Path]:
    """Delete checkpoints that the policy gives up, and return them; what cannot be deleted is warned about.

    A checkpoint of which a file is missing or cut short counts for nothing, and is not deleted either.

    Args:
        root: ``RUN/checkpoints``.
        dry_run: delete nothing.
    Raises:
        DirectoryInUse: another process marks or prunes there.
        CheckpointError: the marks cannot be read.
    """
    if policy.keep_last is None or not root.is_dir():
        return []
    with checkpoints_in_use(root):
        whole: list[Path] = []
        older: list[Path] = []
        for path in sorted(complete_checkpoints(root), key=step_of, reverse=True):
            if len(whole) == policy.keep_last:
                older.append(path)  # looked at only if it is to be deleted: there may be many, of many files
            elif _has_its_files(path):
                whole.append(path)
        present = {step_of(path): path for path in (*whole, *older)}
        given_up = steps_to_delete(list(present), policy, read_marks(root))
        doomed = [present[step] for step in given_up if _has_its_files(present[step])]
        return doomed if dry_run else [path for path in doomed if _delete(path)]


def _has_its_files(directory: Path) -> bool:
    try:
        verify_checkpoint(directory, checksums=False)
    except CheckpointError:
        return False
    return True


def _delete(directory: Path) -> bool:
    try:
        delete_checkpoint(directory)
    except OSError as error:
        LOGGER.warning("%s could not be deleted: %s", directory, error.strerror)
        return False
    return True
