"""Paths as people write them: ``~`` and ``$VARIABLE`` mean what they mean in a shell, or are refused."""

from __future__ import annotations

import os
import re

from megatron_salamandra.foundation.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::|[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(?:(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[^}]*)\}?)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class WrittenPathError(UserError):
    """A path that cannot be meant as it is written."""


def is_url(text: str) -> bool:
    """Whether ``text`` begins as a URL does, with a scheme."""
    return _URL.match(text) is not None


def expanded_path(text: str, *, existing_as_written: bool = False) -> str:
    """``text`` with its leading ``~`` and its variables replaced. URLs are taken as they are.

    Args:
        text: a path, a pattern of paths, or a URL.
        existing_as_written: leave a path alone that exists as written. For command lines, where the shell has
            expanded already and a file may really be called ``a$b``.
    Raises:
        WrittenPathError: a variable is not set, there is no such user, or there is a null byte.
    """
    if "\0" in text:
        raise WrittenPathError(f"{text!r} has a null byte, which no path can have")
    if is_url(text) or (existing_as_written and os.path.lexists(text)):
        return text
    path = os.path.expanduser(text)
    if path.startswith("~"):
        user = path[1:].partition("/")[0]
        raise WrittenPathError(f"{text!r}: there is no user {user}\n  for a file of that name write ./{text}")
    return _VARIABLE.sub(lambda found: _value(found, text), path)


def _value(found: re.Match[str], text: str) -> str:
    name = found["bare"] or found["braced"]
    if not _NAME.fullmatch(name) or (found["bare"] is None and not found[0].endswith("}")):
        raise WrittenPathError(f"{text!r}: {found[0]} is not a variable\n  write $NAME or ${{NAME}}")
    value = os.environ.get(name)
    if not value:
        state = "is not set" if value is None else "is empty"
        raise WrittenPathError(f"{text!r}: the variable {name} {state}\n  export it, or write the path out")
    return value
