"""Where the shipped configurations are: ./configs in a source tree, package data in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def presets_directory() -> Path:
    """Directory of the shipped YAML files."""
    installed = _PACKAGE / "presets"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def preset_names() -> list[str]:
    """Names usable in ``extends:`` and in place of a configuration file, sorted."""
    return sorted(path.stem for path in presets_directory().glob("*.yaml"))
