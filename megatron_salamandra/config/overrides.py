"""``section.key=value`` on the command line: a value is what it is written as."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from megatron_salamandra.config.errors import ConfigError
from megatron_salamandra.config.run_config import RunConfig
from megatron_salamandra.foundation.yaml_files import parse_yaml, plain_yaml_value

COMMAND_LINE = "command line"
_OVERRIDE = re.compile(r"(?P<key>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=(?P<value>.*)", re.DOTALL)
_NULL = ("", "null")


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Nested mapping of ``section.key=value`` arguments; the last of equal keys wins.

    The value of a key that takes text or a path is the text itself, whatever it would be in a YAML file: a date,
    something with ``#`` or ``:`` in it. ``null`` or nothing is null where a key allows it. Lists and sections
    are written as in YAML, ``[ca, es]``; a quoted value is what is inside the quotes, and may start with ``[``.

    Raises:
        ConfigError: an argument is not an override, or its list or section is not readable.
    """
    content: dict[str, Any] = {}
    for argument in overrides:
        parts = _OVERRIDE.fullmatch(argument)
        if parts is None:
            raise ConfigError(
                f"{COMMAND_LINE}: {argument!r} is not an override\n  expected key=value, such as parallel.tensor=2"
            )
        *sections, name = parts["key"].split(".")
        target = content
        for section in sections:
            inside = target.setdefault(section, {})
            if not isinstance(inside, dict):
                raise ConfigError(
                    f"{COMMAND_LINE}: {argument!r} goes inside a key that was given a plain value"
                )
            target = inside
        target[name] = _value(parts["value"], _types_of([*sections, name]), f"{COMMAND_LINE}: {argument}")
    return content


def _value(text: str, accepted: Sequence[Any], origin: str) -> Any:
    """What ``text`` is for a key that accepts these types."""
    if "\0" in text:
        raise ConfigError(f"{origin}: the value has a null byte")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return parse_yaml(text, origin, error_class=ConfigError)
    if text[:1] in ("[", "{"):
        return parse_yaml(text, origin, error_class=ConfigError)
    if accepted and all(_is_text(kind) or kind is types.NoneType for kind in accepted):
        plain = plain_yaml_value(text)
        if isinstance(plain, bool | int | float):
            return plain  # and is refused: whoever writes run_dir=3 mostly meant another key
        return None if types.NoneType in accepted and text in _NULL else text
    return plain_yaml_value(text)


def _is_text(kind: Any) -> bool:
    literal = get_origin(kind) is Literal and all(isinstance(value, str) for value in get_args(kind))
    return literal or kind in (str, Path)


def _types_of(names: Sequence[str]) -> list[Any]:
    """The types that the key accepts; none if there is no such key."""
    accepted: list[Any] = [RunConfig]
    for name in names:
        sections = [kind for kind in accepted if isinstance(kind, type) and issubclass(kind, BaseModel)]
        found = [
            section.model_fields[name].annotation for section in sections if name in section.model_fields
        ]
        accepted = [kind for annotation in found for kind in _members(annotation)]
    return accepted


def _members(annotation: Any) -> list[Any]:
    """The types of a union, without their constraints."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _members(annotation.__origin__)
    return [annotation]
