"""Classes and functions of a user's own, named by an import path that the user wrote: ``package.module:Name``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.names import name_hint

IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""What an import path looks like, as a regular expression."""


class ImportPathError(UserError):
    """An import path leads nowhere, or to something that cannot be used; the message has no file or key yet."""


def find_object(path: str) -> Any:
    """Import what ``package.module:Name`` names. Runs the module.

    Raises:
        ImportPathError: the module cannot be imported, or has no such name.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ImportPathError(f"{module_name} cannot be imported: {error}") from error
        raise ImportPathError(
            f"there is no module {error.name}\n"
            "  install its package, or start with its directory in PYTHONPATH: PYTHONPATH=. salamandra ..."
        ) from error
    except Exception as error:  # the module is somebody's own code
        raise ImportPathError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ImportPathError(f"{module.__file__} has no {name}\n  {name_hint(name, names, of='it has')}")
    return getattr(module, name)


def check_options(function: Callable[..., Any], options: Mapping[str, Any], *, given: int = 0) -> None:
    """Check that ``function`` can be called with ``options`` as keyword arguments.

    Args:
        given: how many arguments are passed by position besides.
    Raises:
        ImportPathError: it does not know one of them, or wants more.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*[None] * given, **options)
    except TypeError as error:
        known = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ][given:]
        raise ImportPathError(f"{error}\n  its options: {', '.join(known) or 'none'}") from error
