"""Optional packages: is one installed, and how to install it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from megatron_salamandra.foundation.errors import UserError


class MissingPackage(UserError):
    """A package that what was asked for needs is not installed; the message says how to install it."""


def install_command(extra: str) -> str:
    """The command that installs the packages of ``extra`` (``data``, ``hf``, ...), from the project's directory.

    The project is on no package index, so the command names the checkout.
    """
    return f"pip install '.[{extra}]' in a checkout of the project"


def is_installed(module: str) -> bool:
    """Whether ``module`` could be imported; does not import it, though it imports the packages above it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (
        ModuleNotFoundError,
        ValueError,
    ):  # no parent package, or a module that was put into place by hand
        return False


def check_installed(*modules: str, extra: str, purpose: str) -> None:
    """Refuse to start without ``modules``.

    Args:
        extra: the extra of the project that brings them.
        purpose: what needs them, the beginning of the sentence: ``curation``, ``--executor ray``.
    Raises:
        MissingPackage: names all that are missing.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise MissingPackage(
            f"{purpose} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed\n"
            f"  {install_command(extra)}"
        )


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import ``module`` where it is used.

    Args:
        extra, purpose: as for :func:`check_installed`.
    Raises:
        MissingPackage: it is not installed, or cannot be imported; says why.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"{purpose} needs {module}, which could not be imported: {error}\n  {install_command(extra)}"
        ) from error
