"""Directories below ``checkpoints/`` that do not count: saves that are running or died, what is damaged or goes.

::

    checkpoints/
      .partial-step-00000030/TOKEN/   the save of step 30 by the owner with that token
      .partial-deleted-TOKEN/         a checkpoint that is being deleted
      damaged-step-00000030/          a checkpoint that was found damaged; nothing deletes it

Every owner of a run has its own place, so that writers of a run that was cut off never write into a later one's save.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from pathlib import Path

from megatron_salamandra.run_directory.checkpoints import PARTIAL, SHARDS

LOGGER = logging.getLogger("salamandra")


def begin_partial(root: Path, step: int, token: str) -> Path:
    """Make the directory in which the save of ``step`` is assembled: the place for it, and :func:`make_partial`."""
    place = place_of_partial(root, step, token)
    make_partial(place)
    return place


def place_of_partial(root: Path, step: int, token: str) -> Path:
    """Where the save of ``step`` is to be assembled; nothing is made.

    Args:
        root: ``RUN/checkpoints``.
        token: of the run's owner, and of the save if one owner may save a step twice.
    """
    usual = root / f"{PARTIAL}step-{step:08d}"
    if usual.is_dir() and not os.access(usual, os.W_OK | os.X_OK):
        # Something that can be neither deleted nor written is in the way.
        return root / f"{PARTIAL}step-{step:08d}-{token}" / token
    return usual / token


def make_partial(place: Path) -> None:
    """Clear away what earlier saves left, and make the directory in which a save is assembled.

    What cannot be cleared away is warned about and passed by. What is in the place already stays: other ranks may have
    begun to write there.

    Args:
        place: of :func:`place_of_partial`.
    Raises:
        OSError: the directory cannot be made.
    """
    root = place.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    for stale in root.glob(f"{PARTIAL}*"):
        if stale == place.parent and stale.is_dir() and not stale.is_symlink():
            for other in stale.iterdir():
                if other != place:
                    _remove(other)
        elif stale.is_dir() or stale.is_symlink():  # a file is nothing that a save leaves
            _remove(stale)
    (place / SHARDS).mkdir(parents=True, exist_ok=True)


def drop_partial(partial: Path) -> None:
    """Remove a directory that :func:`begin_partial` made; what cannot be removed is warned about."""
    _remove(partial)
    _remove_if_empty(partial.parent)


def publish_partial(partial: Path, final: Path) -> None:
    """Give a complete save its name.

    Raises:
        OSError: the system refused.
    """
    os.replace(partial, final)
    _remove_if_empty(partial.parent)


def delete_checkpoint(directory: Path) -> None:
    """Delete a checkpoint, or the link to one; a deletion that is cut short never looks like a checkpoint.

    Raises:
        OSError: it could not even be taken out of sight.
    """
    doomed = directory.with_name(f"{PARTIAL}deleted-{secrets.token_hex(8)}")
    os.replace(directory, doomed)
    _remove(doomed)


def set_aside(directory: Path) -> Path:
    """Rename a checkpoint that is damaged, so that nothing takes it for one, and return its new name.

    Raises:
        OSError: the system refused.
    """
    place, number = directory.with_name(f"damaged-{directory.name}"), 2
    while place.exists():
        place, number = directory.with_name(f"damaged-{directory.name}-{number}"), number + 1
    os.rename(directory, place)
    return place


def _remove(path: Path) -> None:
    try:
        if path.is_symlink():
            path.unlink()  # what it points to is somebody else's
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        LOGGER.warning("%s cannot be deleted (%s) and is left where it is", path, error.strerror)


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
