"""Marks: checkpoints that nothing prunes, each with a name if it was given one.

They lie beside the checkpoints, in ``checkpoints/marks.json``, since nothing may be added to a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.directory_lock import sole_use
from megatron_salamandra.run_directory.checkpoint_state import CheckpointError
from megatron_salamandra.run_directory.checkpoints import complete_checkpoints, step_directory, step_of

MARKS = "marks.json"


@contextmanager
def checkpoints_in_use(root: Path) -> Iterator[None]:
    """Keep whoever else marks or prunes away from ``RUN/checkpoints`` while the block runs.

    Raises:
        DirectoryInUse: somebody does; they are named.
    """
    with sole_use(root, "wait until that ends, and do it again"):
        yield


def read_marks(root: Path) -> dict[int, str | None]:
    """Marked steps below ``RUN/checkpoints``, and what they are called.

    Raises:
        CheckpointError: the file is damaged: then nothing may be pruned.
    """
    path = root / MARKS
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {int(step): None if name is None else str(name) for step, name in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}\n  delete it and mark again what is to be kept"
        ) from error


def mark_checkpoint(root: Path, step: int, name: str | None) -> None:
    """Mark the checkpoint of a step; one that is marked gets the new name.

    Raises:
        CheckpointError: there is no such checkpoint, or another has the name.
        DirectoryInUse: another process marks or prunes there.
    """
    _check_there(root, step)
    with checkpoints_in_use(root):
        _check_there(root, step)
        marks = read_marks(root)
        taken = next((other for other, its in marks.items() if its == name and other != step), None)
        if name is not None and taken is not None:
            raise CheckpointError(
                f"{name} is the name of step {taken}\n  choose another, or unmark that one first"
            )
        _write(root, marks | {step: name})


def unmark_checkpoint(root: Path, step: int) -> None:
    """Take a mark away; from then on the checkpoint is pruned like others.

    Raises:
        CheckpointError: the step is not marked.
        DirectoryInUse: another process marks or prunes there.
    """
    marks = read_marks(root)
    if step not in marks:
        marked = ", ".join(map(str, sorted(marks))) or "none"
        raise CheckpointError(f"step {step} of {root} is not marked\n  marked are: {marked}")
    with checkpoints_in_use(root):
        _write(root, {other: name for other, name in read_marks(root).items() if other != step})


def _check_there(root: Path, step: int) -> None:
    there = complete_checkpoints(root)
    if step_directory(root, step) not in there:
        steps = ", ".join(str(step_of(path)) for path in there) or "none"
        raise CheckpointError(f"{root} has no checkpoint of step {step}\n  there are: {steps}")


def _write(root: Path, marks: dict[int, str | None]) -> None:
    contents = {str(step): marks[step] for step in sorted(marks)}
    atomic_write_bytes(root / MARKS, json.dumps(contents, indent=1).encode())
