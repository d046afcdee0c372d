"""Reading YAML files without YAML's surprises: the one reader of what people write.

A key written twice is refused. A plain value is a number only in decimal notation, as ``1000``, ``1_000`` or ``2e-4``:
``0x1f``, ``017``, ``1:30`` and ``2025-11-28`` are text, as they are to whoever wrote them, and so is ``no``, which is
also Norwegian.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from megatron_salamandra.foundation.errors import UserError


class YamlError(UserError):
    """A file is not readable as YAML, or not of the expected form."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and null bytes, and knows decimal numbers alone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:  # `<<` stands for keys, it is none
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As PyYAML does, but merges (``<<``) that multiply are refused before they are done."""
        merged = 0
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                for inner in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if isinstance(inner, yaml.MappingNode):
                        self.flatten_mapping(inner)
                        merged += len(inner.value)
                    if merged > _MOST_VALUES:
                        raise yaml.constructor.ConstructorError(None, None, _TOO_LARGE, key_node.start_mark)
        super().flatten_mapping(node)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if isinstance(node.value, str) and "\0" in node.value:
            raise yaml.constructor.ConstructorError(None, None, "a text has a null byte", node.start_mark)
        return super().construct_scalar(node)


class _ExactLoader(_StrictLoader):
    """The same, but decimals stay the text that was written, so that 0.1 is a tenth."""


_MOST_BYTES = 4 << 20
_MOST_VALUES = 100_000
_TOO_LARGE = f"more than {_MOST_VALUES:,} values, once its aliases (*) are written out"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_FLOAT_TAG = "tag:yaml.org,2002:float"
_DIGITS = "[0-9](?:_?[0-9])*"
# In place of YAML 1.1's, which has octal, hexadecimal, base-60 and binary numbers, dates, and yes, no, on and off.
_PLAIN_VALUES = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9](?:_?[0-9])*)", list("-+0123456789")),
    (
        _FLOAT_TAG,
        rf"[-+]?(?:(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][-+]?[0-9]+)?|{_DIGITS}[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE_TAG, r"<<", ["<"]),
)

_StrictLoader.yaml_implicit_resolvers = {}
_ExactLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _PLAIN_VALUES:
    _StrictLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)
    if _tag != _FLOAT_TAG:
        _ExactLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def parse_yaml(
    text: str, origin: str, *, exact: bool = False, error_class: type[UserError] = YamlError
) -> Any:
    """Parse one YAML document.

    Args:
        origin: what is named in errors, a path or ``command line``.
        exact: leave decimals as the text that was written.
        error_class: what is raised, so that a room's callers see the room's own errors.
    Raises:
        error_class: the text is not YAML, or a key is written twice; names ``origin`` and the line.
    """
    try:
        if len(text) > _MOST_BYTES:
            raise error_class(f"{origin}: has {len(text):,} characters; {_MOST_BYTES:,} are the most")
        value = yaml.load(text, Loader=_ExactLoader if exact else _StrictLoader)  # nosec B506 # both are SafeLoaders
        if _size(value, set(), {}) > _MOST_VALUES:
            raise error_class(f"{origin}: {_TOO_LARGE}")
        return value
    except RecursionError:
        raise error_class(f"{origin}: not readable as YAML: nested too deeply, or contains itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{origin}:{mark.line + 1}" if mark is not None else origin
        raise error_class(f"{place}: not readable as YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise error_class(f"{origin}: not readable as YAML: {error}") from None
    except UserError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise error_class(f"{origin}: not readable as YAML: {error}") from None


def _size(value: Any, above: set[int], sizes: dict[int, int]) -> int:
    """How many values there are once each alias (``*x``) is what it stands for.

    Raises:
        RecursionError: an alias stands inside what it stands for.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        raise RecursionError
    if id(value) not in sizes:
        above.add(id(value))
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(part, above, sizes) for part in inner)
        above.remove(id(value))
    return sizes[id(value)]


def plain_yaml_value(text: str) -> Any:
    """What ``text`` is where it stands alone: null, true or false, a decimal number, or else itself.

    Nothing in it is a comment, a list, a mapping or a quote.
    """
    loader = _StrictLoader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return text if tag == _MERGE_TAG else loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


def read_yaml_mapping(
    path: Path, *, exact: bool = False, error_class: type[UserError] = YamlError
) -> dict[str, Any]:
    """Read a file whose top level is a mapping with text keys; an empty file is an empty mapping.

    Args:
        exact, error_class: as for :func:`parse_yaml`.
    Raises:
        error_class: the file cannot be read, is not UTF-8 YAML, or is not a mapping.
    """
    try:
        if (
            size := path.stat().st_size
        ) > 4 * _MOST_BYTES:  # of UTF-8, which a character takes four of at most
            raise error_class(f"{path}: has {size:,} bytes, which no file of settings has")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise error_class(f"{path}: not UTF-8 at byte {error.start}") from None
    content = parse_yaml(text, str(path), exact=exact, error_class=error_class)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error_class(f"{path}: the top level must be sections and keys, found {type(content).__name__}")
    if others := [key for key in content if not isinstance(key, str)]:
        raise error_class(f"{path}: the key {others[0]!r} is not text\n  write '{others[0]}', in quotes")
    return content
