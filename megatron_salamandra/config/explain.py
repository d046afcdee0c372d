"""Pydantic's validation errors in the words of the person who wrote the file."""

from __future__ import annotations

import re
import types
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from megatron_salamandra.config.errors import Problem
from megatron_salamandra.foundation.names import nearest

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "model_type": "a section with keys below it",
    "finite_number": "a finite number",
    "string_too_short": "some text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section with keys below it",
    "string_pattern_mismatch": "an import path, package.module:Name",
}


_MOST_PROBLEMS = 50
"""That are told one by one: the nearest name of each is looked for among all that there are."""


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """One problem per thing that pydantic found wrong, in the order of the keys."""
    problems: list[Problem] = []
    details = error.errors(include_url=False)
    for detail in details[:_MOST_PROBLEMS]:
        if detail["type"] == "contradiction":
            problems.extend(detail["ctx"]["problems"])
        else:
            problems.append(_problem_of(detail, root))
    if (more := len(details) - _MOST_PROBLEMS) > 0:
        problems.append(Problem("", f"{more:,} more problems of this kind"))
    return problems


def all_keys(root: type[BaseModel]) -> list[str]:
    """Every dotted key of the configuration, sections excluded."""
    keys: list[str] = []
    for name, info in root.model_fields.items():
        section = info.annotation
        if get_origin(section) is tuple:  # a list of sections; an entry's number is no part of the key
            section = get_args(section)[0]
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys.extend(f"{name}.{inner}" for inner in section.model_fields)
        else:
            keys.append(name)
    return keys


def _problem_of(detail: ErrorDetails, root: type[BaseModel]) -> Problem:
    key = ".".join(str(part) for part in detail["loc"])
    value = _shown(detail["input"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Problem(key, f"{key} is not a known key", _nearest(key, root))
    if kind == "missing":
        return Problem(key, f"{key} is required but never set")
    if kind == "value_error":
        reason, _, remedy = str(detail["ctx"]["error"]).partition("\n")
        return Problem(key, f"{key}: {reason}", remedy.strip())
    expected = _EXPECTED.get(kind) or _expected_range(kind, detail.get("ctx", {}))
    if key == "optimizer.name" and kind == "string_pattern_mismatch":
        expected = f"adamw or {expected}"
    if expected is None:
        return Problem(key, f"{key} = {value}: {detail['msg']}")
    text = f"{key} = {value} ({_type_name(detail['input'])}); expected {expected}"
    return Problem(key, text, _remedy(kind, detail["input"]))


def _remedy(kind: str, value: Any) -> str:
    """How the value is written that was probably meant; empty if that is not clear."""
    if kind in ("tuple_type", "list_type") and isinstance(value, str):
        return f"write [{value.strip('()[] ')}]"
    if kind in ("int_type", "int_from_float"):
        if isinstance(value, float) and value.is_integer():
            return f"write {int(value)}"
        if isinstance(value, str) and re.match(r"[-+]?[0-9]", value):
            return "write it in decimal digits"
    if kind == "path_type" and not isinstance(value, dict | list | types.NoneType):
        return "for a path of that name put ./ before it"
    if kind == "string_type" and not isinstance(value, dict | list | types.NoneType):
        return f"for that text write '{_shown(value)}', in quotes"
    return ""


def _expected_range(kind: str, context: dict[str, Any]) -> str | None:
    if kind == "literal_error":
        return f"one of {str(context['expected']).replace(' or ', ', ')}"
    words = {
        "greater_than": ("above", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("below", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    if kind in words:
        word, bound = words[kind]
        return f"{word} {context[bound]:g}"
    return None


def _nearest(key: str, root: type[BaseModel]) -> str:
    """The key that was probably meant: a neighbour in its section first, then the same name elsewhere."""
    known = all_keys(root)
    key = ".".join(part for part in key.split(".") if not part.isdigit())
    section, _, name = key.rpartition(".")
    inner = _section_at(root, section)
    known += [f"{section}.{own}" for own in inner.model_fields] if inner is not None else []
    neighbours = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    candidates = dict(neighbours) if section else {**neighbours, **{name: name for name in root.model_fields}}
    found = nearest(name, candidates)
    near = [candidates[found]] if found else [other for other in known if other.rpartition(".")[2] == name]
    if near:
        return f"did you mean {near[0]}?"
    names = sorted(candidates)
    return f"keys of {section or 'the top level'}: {', '.join(names)}"


def _section_at(root: type[BaseModel], section: str) -> type[BaseModel] | None:
    """The section of a dotted name, also one in a mapping of sections such as ``phases.NAME``."""
    found: Any = root
    for name in section.split(".") if section else []:
        if get_origin(found) is dict:
            found = get_args(found)[1]
            continue
        info = getattr(found, "model_fields", {}).get(name)
        if info is None:
            return None
        choices = [choice for choice in get_args(info.annotation) if choice is not type(None)]
        found = choices[0] if len(choices) == 1 else info.annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(value: Any) -> str:
    names = {dict: "a section", list: "a list", str: "text", bool: "true or false", int: "a whole number"}
    return "nothing" if value is None else names.get(type(value), "a number")
