"""Stages: run once, remembered, and run again only when what they depend on has changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import megatron_salamandra
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes

BOOK_NAME = "stages.json"
_DONE, _STARTED = "done", "started"
_FIELDS = {"key", "state", "seconds"}


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Attributes:
        name: key in the book of stages.
        title: what people read.
        inputs: JSON values that decide the result, besides the stages before.
        outputs: files and directories the stage makes; removed before it is done anew.
        action: does the work. A stage that was interrupted finds its own unfinished outputs.
    """

    name: str
    title: str
    inputs: dict[str, Any]
    outputs: Sequence[Path]
    action: Callable[[], None]


class StageBook:
    """Runs stages in order and keeps ``stages.json``: a key over all inputs so far, and the seconds taken.

    Args:
        directory: of the book.
        count: number of stages, for the banners.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self._path = directory / BOOK_NAME
        self._count = count
        self._number = 0
        self._has_run = False
        self._chain = f"salamandra {megatron_salamandra.__version__}"
        self._entries = self._load()
        self._started = time.monotonic()

    def run(self, stage: Stage) -> None:
        """Run ``stage``, or say that its result is there already.

        A stage is done anew when its inputs changed, an output is gone, or a stage before it ran.
        """
        self._number += 1
        described = json.dumps([self._chain, stage.name, stage.inputs], sort_keys=True, default=str)
        self._chain = hashlib.sha256(described.encode()).hexdigest()
        entry = self._entries.get(stage.name, {})
        done = entry.get("state") == _DONE and all(path.exists() for path in stage.outputs)
        same = entry.get("key") == self._chain and not self._has_run
        heading = f"[{self._number}/{self._count}] {stage.title}"
        if same and done:
            _say(f"{heading}: unchanged since it was done (it took {_minutes(entry['seconds'])})")
            return
        _say(f"\n{'=' * 100}\n{heading}   (at {_minutes(time.monotonic() - self._started)})\n{'=' * 100}")
        self._has_run = True
        if not same:
            for path in stage.outputs:
                remove(path)
        self._note(stage.name, _STARTED, 0.0)
        began = time.monotonic()
        stage.action()
        seconds = time.monotonic() - began
        self._note(stage.name, _DONE, seconds)
        _say(f"{stage.title}: done in {_minutes(seconds)}")

    def seconds(self) -> dict[str, float]:
        """Seconds that each stage took when it ran."""
        return {name: float(entry["seconds"]) for name, entry in self._entries.items()}

    def _note(self, name: str, state: str, seconds: float) -> None:
        self._entries[name] = {"key": self._chain, "state": state, "seconds": round(seconds, 2)}
        atomic_write_bytes(self._path, (json.dumps(self._entries, indent=1) + "\n").encode())

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def holds_a_book(directory: Path) -> bool:
    """Whether ``directory`` has a ``stages.json`` that a :class:`StageBook` wrote."""
    try:
        entries = json.loads((directory / BOOK_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(entries, dict)
        and bool(entries)
        and all(isinstance(entry, dict) and entry.keys() == _FIELDS for entry in entries.values())
    )


def remove(path: Path) -> None:
    """Delete a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, flush=True)
    sys.stderr.flush()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min" if seconds >= 60 else f"{seconds:.1f} s"
