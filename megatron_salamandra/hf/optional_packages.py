"""Packages of the ``hf`` extra, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from megatron_salamandra.hf.errors import HuggingFaceError


def require_package(name: str, purpose: str) -> Any:
    """Import ``name``, a package (or a module of one) that comes with the ``hf`` extra.

    Raises:
        HuggingFaceError: it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HuggingFaceError(
            f"{purpose} needs a Python package that could not be imported: {error}\n"
            "  install it with: pip install 'megatron-salamandra[hf]'"
        ) from error
