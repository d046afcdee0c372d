"""Functions and classes of the user's own: in a module that Python can import, or in a file that is named."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from salamandra_data.errors import DataError

_SUFFIX = ".py"


def load(place: str, option: str) -> Any:
    """What ``place`` names.

    Args:
        place: ``package.module:name``, of a module that this Python can import, or ``path/to/file.py:name``, which is
            loaded from exactly that file. Python's path is not changed.
        option: that names it, for messages.
    Raises:
        DataError: the module cannot be imported or the file be run, or it has nothing of that name.
    """
    module, _, name = place.rpartition(":")
    try:
        found = _from_file(Path(module)) if module.endswith(_SUFFIX) else importlib.import_module(module)
        return getattr(found, name)
    except Exception as error:
        raise DataError(
            f"{option} {place}: {type(error).__name__}: {error}\n"
            "  give module:name of a module that this Python can import, or file.py:name of a file"
        ) from error


def with_its_file(place: str, directory: Path) -> str:
    """``place`` with the path of its file made absolute, since tasks may start elsewhere.

    A module that cannot be imported, and whose file is in ``directory``, is taken from that file.
    """
    module, separator, name = place.rpartition(":")
    if module.endswith(_SUFFIX):
        return f"{(directory / module).absolute()}:{name}"
    file = directory.absolute() / f"{module.replace('.', '/')}{_SUFFIX}"
    if separator and not _is_importable(module) and file.is_file():
        return f"{file}:{name}"
    return place


def digest(place: str) -> str | None:
    """SHA-256 of the file that ``place`` names; None if it names a module."""
    module = place.rpartition(":")[0]
    return hashlib.sha256(Path(module).read_bytes()).hexdigest() if module.endswith(_SUFFIX) else None


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _from_file(path: Path) -> ModuleType:
    path = path.absolute()
    content = path.read_bytes()
    # A name of its own: what the file defines finds its module by it, and no module that is imported is hidden.
    name = f"salamandra_user_{path.stem}_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # a .py file always has one
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
