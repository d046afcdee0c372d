"""Reading YAML files without YAML's surprises: the one reader of what people write.

A key written twice is refused, ``no`` is a word (and Norwegian), ``2e-4`` is a number.
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
    """Safe YAML that refuses a key written twice, reads 2e-4 as a number and ``no`` as a word."""

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


class _ExactLoader(_StrictLoader):
    """The same, but decimals stay the text that was written, so that 0.1 is a tenth."""


_FLOAT = re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")

# YAML 1.1 reads yes, no, on and off as booleans: `no` is also Norwegian. Keep true and false only.
_StrictLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
# YAML 1.1 also wants a dot and a sign in 2.0e-4; people and other tools write 2e-4.
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


_ExactLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for letter, resolvers in _StrictLoader.yaml_implicit_resolvers.items()
}


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
        return yaml.load(text, Loader=_ExactLoader if exact else _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{origin}:{mark.line + 1}" if mark is not None else origin
        raise error_class(f"{place}: not readable as YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise error_class(f"{origin}: not readable as YAML: {error}") from None


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
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise error_class(f"{path}: not UTF-8 at byte {error.start}") from None
    content = parse_yaml(text, str(path), exact=exact, error_class=error_class)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise error_class(f"{path}: the top level must be sections and keys, found {type(content).__name__}")
    return content
