"""Options of a command, stated once.

A command's options are one frozen model. Each field is annotated with an :class:`Option`; from that come the
arguments of the command line, the checks, the report of what was asked for, and the identity of work that was
started, so that none of them can leave an option out::

    class BlendOptions(Options):
        shards: Annotated[tuple[str, ...], Option("directories of shards", metavar="DIR")]
        budget_tokens: Annotated[Count | None, Option("length of the run")] = None

A field that is itself an :class:`Options` model is a group: its options stand below its title in ``--help``, and
beside the others on the command line, in the report and in the identity.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from megatron_salamandra.foundation.credentials import without_credentials
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.foundation.written_paths import expanded_path

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What decides random choices."""


class PathText:
    """Marks a type whose text is a path or a URL, so that ``~`` and ``$VARIABLE`` are expanded; Path needs no mark."""


PathPattern = Annotated[str, PathText()]
"""A path, a pattern of paths or a URL, as text."""

OptionsType = TypeVar("OptionsType", bound="Options")

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


class OptionError(UserError):
    """Options that cannot be used; names each option, its value and what would work."""

    exit_code = EXIT_USAGE


class OneOf:
    """Options that exclude each other: give the same instance to each of them.

    Args:
        required: whether one of them must be given.
    """

    def __init__(self, *, required: bool = False) -> None:
        self.required = required


@dataclass(frozen=True)
class Option:
    """What a field's type and default do not say about an option.

    Args:
        text: what it is for, as shown by ``--help``; the default is added by itself.
        metavar: how its value is called, a unit where it has one, such as ``GIB``.
        flag: its name on the command line, if it is not that of the field. A true-or-false option that is true by
            default needs the name of what switches it off.
        decides_output: whether another value can give other output. False for workers, machines and places, with
            another of which a started run may go on, and for inputs, whose contents count and not their names.
        positional: given without a name.
        anywhere: positional values with a ``=`` in them, which may also stand between and after options.
        after_dashes: takes every word after ``--`` as it is; :func:`split_at_dashes` finds them.
        repeat: one value each time the option is given, instead of several values at once.
        may_be_empty: may be given without any value.
        default_text: how the default is shown, if not as it is.
        one_of: options that exclude this one.
    """

    text: str
    metavar: str | None = None
    flag: str | None = None
    decides_output: bool = True
    positional: bool = False
    anywhere: bool = False
    after_dashes: bool = False
    repeat: bool = False
    may_be_empty: bool = False
    default_text: str | None = None
    one_of: OneOf | None = None


class Options(BaseModel):
    """Base of the options of a command, and of groups of options that several commands share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    title: ClassVar[str] = ""
    """Heading in ``--help`` where the model is a group of another one."""

    revision: ClassVar[int] = 1
    """Raise it when a default or the meaning of an option changes: work that was started before is then not used."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        names = [leaf.name for leaf in _leaves(cls)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise TypeError(f"{cls.__name__}: the option {', '.join(sorted(twice))} is stated twice")

    @model_validator(mode="after")
    def _one_of_each_group(self) -> Self:
        groups: dict[OneOf, list[_Leaf]] = {}
        for leaf in _leaves(type(self)):
            if leaf.option.one_of is not None and len(leaf.path) == 1:
                groups.setdefault(leaf.option.one_of, []).append(leaf)
        for group, members in groups.items():
            given = [leaf.flag for leaf in members if leaf.is_given(self)]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} exclude each other\n  give one of them")
            if group.required and not given:
                raise ValueError(f"one of {', '.join(leaf.flag for leaf in members)} is required")
        return self

    def report(self) -> dict[str, Any]:
        """Every option and its value, defaults too, as JSON values, in the order of the command line."""
        return {leaf.name: _shown(_plain(leaf.value(self))) for leaf in _leaves(type(self))}

    def identity(self, also: Mapping[str, Any] | None = None) -> str:
        """A hash of what decides the output, the same on every machine and in every version.

        Options at their default are left out, so that an option added later, with a default that changes nothing,
        does not disown work that was started before it.

        Args:
            also: what else decides the output, such as checksums of the input.
        Returns:
            64 hexadecimal digits.
        """
        decided = {
            leaf.name: _plain(leaf.value(self))
            for leaf in _leaves(type(self))
            if leaf.option.decides_output and leaf.is_given(self)
        }
        return canonical_hash({"revision": self.revision, "options": decided, "also": dict(also or {})})


def _shown(value: Any) -> Any:
    """A JSON value without the credentials in its texts."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return {key: _shown(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def canonical_hash(value: Any) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of a value: sorted keys, no spaces, ASCII, paths as text."""
    text = json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def add_options(parser: argparse.ArgumentParser, model: type[Options]) -> None:
    """Add the options of ``model`` to a command's parser."""
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    exclusive: dict[OneOf, argparse._ActionsContainer] = {}
    for leaf in _leaves(model):
        if leaf.option.after_dashes:
            parser.set_defaults(after_dashes=leaf.name)
            continue
        if leaf.group not in groups:
            groups[leaf.group] = parser.add_argument_group(leaf.group)
        container = groups[leaf.group]
        if (one_of := leaf.option.one_of) is not None:
            if one_of not in exclusive:
                exclusive[one_of] = container.add_mutually_exclusive_group(required=one_of.required)
            container = exclusive[one_of]
        container.add_argument(*leaf.argument_names(), **leaf.argument_settings())
        if leaf.option.anywhere:
            parser.set_defaults(anywhere=leaf.name)


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the first ``--``, and what stands after it."""
    cut = list(words).index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


def read_options(model: type[OptionsType], arguments: argparse.Namespace) -> OptionsType:
    """The options that were parsed, with the defaults of the model.

    Raises:
        OptionError: options contradict each other, or a value is out of its range.
    """
    values: dict[str, Any] = {}
    for leaf in _leaves(model):
        target = values
        for group in leaf.path[:-1]:
            target = target.setdefault(group, {})
        if hasattr(arguments, leaf.name):
            target[leaf.path[-1]] = getattr(arguments, leaf.name)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise OptionError("\n".join(_complaints(error, model))) from None


def _complaints(error: ValidationError, model: type[Options]) -> Iterator[str]:
    by_path: dict[tuple[int | str, ...], _Leaf] = {leaf.path: leaf for leaf in _leaves(model)}
    for detail in error.errors(include_url=False):
        place = detail["loc"]
        leaf = next((by_path[place[:n]] for n in range(len(place), 0, -1) if place[:n] in by_path), None)
        if detail["type"] == "value_error":
            reason = str(detail["ctx"]["error"])
            yield reason if leaf is None else f"{leaf.flag}: {reason}"
        elif leaf is None:
            yield f"{'.'.join(map(str, place))}: {detail['msg']}"
        elif detail["type"] == "missing":
            yield f"{leaf.flag} is required"
        else:
            yield f"{leaf.flag} {detail['input']}: expected {leaf.expected() or detail['msg']}"


@dataclass(frozen=True)
class _Leaf:
    """One option of a model, groups opened."""

    path: tuple[str, ...]
    group: str
    info: FieldInfo
    option: Option

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def flag(self) -> str:
        if self.option.positional:
            return self.option.metavar or self.name.upper()
        off = "no-" if self.info.annotation is bool and self.info.default is True else ""
        return self.option.flag or f"--{off}{self.name.replace('_', '-')}"

    @property
    def default(self) -> Any:
        return self.info.get_default(call_default_factory=True)

    def value(self, options: Options) -> Any:
        found: Any = options
        for name in self.path:
            found = getattr(found, name)
        return found

    def is_given(self, options: Options) -> bool:
        """Whether the value is not the default."""
        default = self.default
        return default is PydanticUndefined or _plain(self.value(options)) != _plain(default)

    @property
    def several(self) -> bool:
        return get_origin(_without_none(self.info.annotation)) is tuple

    @property
    def one_value(self) -> Any:
        """Type of one value, with its constraints."""
        inner = _without_none(self.info.annotation)
        if self.several:
            return get_args(inner)[0]
        constraints = [item for item in self.info.metadata if not isinstance(item, Option)]
        return Annotated[(inner, *constraints)] if constraints else inner

    def argument_names(self) -> list[str]:
        return [self.name] if self.option.positional else [self.flag]

    def argument_settings(self) -> dict[str, Any]:
        """What argparse is told."""
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": self.help()}
        required = self.info.is_required()
        if not self.option.positional:
            settings["dest"] = self.name
        if self.info.annotation is bool:
            return {**settings, "action": "store_const", "const": not self.default}
        core, _ = _opened(self.one_value)
        if get_origin(core) is Literal:
            settings["choices"] = get_args(core)
        settings["metavar"] = self.option.metavar or _METAVARS.get(core)
        settings["type"] = self.read
        if self.several:
            if self.option.repeat:
                settings["action"] = "append"
            else:
                empty = self.option.may_be_empty or (self.option.positional and not required)
                settings.update(action="extend", nargs="*" if empty else "+")
        elif self.option.positional and not required:
            settings["nargs"] = "?"
        if not self.option.positional:
            settings["required"] = required
        return settings

    def help(self) -> str:
        """The text, with the default."""
        text = self.option.text
        default = self.default
        shown = self.option.default_text
        if shown is None and default not in (None, PydanticUndefined, ()) and not isinstance(default, bool):
            values = default if isinstance(default, tuple) else (default,)
            shown = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        return (f"{text} (default: {shown})" if shown else text).replace("%", "%%")

    def read(self, text: str) -> Any:
        """One value from its text on the command line.

        Raises:
            argparse.ArgumentTypeError: it is not one; says what is.
        """
        core, marks = _opened(self.one_value)
        is_path = isinstance(core, type) and issubclass(core, PurePath)
        try:
            if is_path or any(isinstance(mark, PathText) for mark in marks):
                text = expanded_path(text, existing_as_written=True)
            if core is int and not _WHOLE_NUMBER.fullmatch(text):
                raise argparse.ArgumentTypeError(f"{text!r} is not {self.expected()}")
            return TypeAdapter(self.one_value, config=_VALUE).validate_python(text)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            if detail["type"] == "value_error":
                reason = str(detail["ctx"]["error"])
            else:
                reason = f"{text!r} is not {self.expected()}" if self.expected() else detail["msg"]
            raise argparse.ArgumentTypeError(reason) from None
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    def expected(self) -> str:
        """What a value must be, in words; empty if the type does not say."""
        core, constraints = _opened(self.one_value)
        if get_origin(core) is Literal:
            return f"one of {', '.join(map(str, get_args(core)))}"
        if core not in (int, float):
            return ""
        bounds = {name: value for bound in constraints for name, value in _bound(bound)}
        words = "a whole number" if core is int else "a number"
        if "ge" in bounds and "le" in bounds:
            return f"{words} from {bounds['ge']} to {bounds['le']}"
        told = {"ge": ", {} or more", "gt": " above {}", "le": ", {} or less", "lt": " below {}"}
        return words + "".join(text.format(bounds[name]) for name, text in told.items() if name in bounds)


_VALUE = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)
_METAVARS: dict[Any, str] = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def _leaves(model: type[Options], above: tuple[str, ...] = (), group: str = "") -> Iterator[_Leaf]:
    """The options of a model in the order they are stated, those of groups in their place."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Options):
            yield from _leaves(inner, (*above, name), inner.title or group)
            continue
        option = next((item for item in info.metadata if isinstance(item, Option)), None)
        if option is None:
            raise TypeError(f"{model.__name__}.{name}: annotate it with an Option that says what it is for")
        yield _Leaf((*above, name), group, info, option)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        others = [part for part in get_args(annotation) if part is not type(None)]
        return others[0] if len(others) == 1 else Union[tuple(others)]  # noqa: UP007
    return annotation


def _opened(annotation: Any) -> tuple[Any, list[Any]]:
    """The type inside Annotated, and the bounds that it has there."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    core, *metadata = get_args(annotation)
    core, inner = _opened(core)
    bounds = [
        part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    return core, [*inner, *bounds]


def _bound(constraint: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of a bound: pydantic's constraints are dataclasses with one field each."""
    if isinstance(constraint, Ge | Gt | Le | Lt):
        yield from asdict(constraint).items()


def _plain(value: Any) -> Any:
    """A value as JSON has it: paths and other objects as text, models and tuples opened."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case set() | frozenset():
            return sorted((_plain(inner) for inner in value), key=repr)
        case _:
            return str(value)
