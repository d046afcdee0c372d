"""What a task of a job array is to do, as JSON: a file that names classes and their fields, and cannot execute.

Classes are those of this project and of the packages that the batch script names, and only such that hold fields:
dataclasses, named tuples and models of options. Making one calls nothing but its own constructor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.own_sums import drop_own_sum, own_sum_holds, with_own_sum
from salamandra_data.errors import DataError
from salamandra_data.execution.stage import Stage, StageRecord

OURS = ("salamandra_data", "megatron_salamandra")
"""Packages whose classes are always known."""


@dataclass(frozen=True)
class ArrayTasks:
    """The tasks of a stage that were left when its arrays were submitted.

    Attributes:
        stage: whose they are.
        record: of the stage.
        before: of the stage before it.
        tasks: their numbers; each is one task of an array.
        array_size: tasks of each array but the last.
    """

    stage: Stage
    record: StageRecord
    before: StageRecord | None
    tasks: tuple[int, ...]
    array_size: int

    def save(self, file: Path) -> list[str]:
        """Write it, readable by this user alone: places may have credentials in them.

        Returns:
            The packages, in order of name, whose classes it names besides those of :data:`OURS`.

        Raises:
            DataError: what the stage runs holds something else than values, containers and classes of fields that
                can be found by their names; says where.
            WriteError: the system refused.
        """
        packages: set[str] = set()
        contents = json.dumps({"tasks": _to_json(self, "tasks", packages)}, indent=1) + "\n"
        atomic_write_bytes(file, with_own_sum(contents.encode()), mode=0o600)
        return sorted(packages.difference(OURS))

    @classmethod
    def load(cls, file: Path, packages: Sequence[str]) -> ArrayTasks:
        """Read what :meth:`save` wrote.

        Args:
            packages: whose classes it may name, besides :data:`OURS`.
        Raises:
            DataError: it cannot be read, is damaged, or names something else.
        """
        try:
            raw = file.read_bytes()
            contents = json.loads(raw)
            if isinstance(contents, dict):
                drop_own_sum(contents)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read as a file of tasks: {error}") from error
        if not isinstance(contents, dict) or contents.keys() != {"tasks"} or not own_sum_holds(raw):
            raise DataError(
                f"{file}: does not have its own checksum\n  run the command again, which writes it anew"
            )
        try:
            tasks = _from_json(contents["tasks"], {*OURS, *packages})
        except (TypeError, KeyError, AttributeError, ImportError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: is no file of tasks: {error}") from error
        if not isinstance(tasks, cls):
            raise DataError(f"{file}: holds {type(tasks).__name__}, expected tasks of a stage")
        return tasks


def _names(kind: type) -> Sequence[str] | None:
    """The fields of a class that holds such; None for another one."""
    if issubclass(kind, BaseModel):
        return list(kind.model_fields)
    if is_dataclass(kind):
        return [field.name for field in fields(kind) if field.init]
    return getattr(kind, "_fields", None) if issubclass(kind, tuple) else None


def _to_json(value: Any, place: str, packages: set[str]) -> Any:
    """The value for JSON; the packages of its classes are added to ``packages``.

    Args:
        place: of the value, such as ``tasks.stage.run``, for messages.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        inner = [_to_json(entry, f"{place}[{number}]", packages) for number, entry in enumerate(value)]
        return {"tuple": inner} if kind is tuple else inner
    if kind is dict:
        return {
            "dict": [
                [
                    _to_json(key, f"key {key!r:.40} of {place}", packages),
                    _to_json(entry, f"{place}[{key!r:.40}]", packages),
                ]
                for key, entry in value.items()
            ]
        }
    if isinstance(value, Path):
        return {"path": str(value)}
    return _fields_to_json(value, place, packages)


def _fields_to_json(value: Any, place: str, packages: set[str]) -> dict[str, Any]:
    kind = type(value)
    shown = f"{kind.__module__}.{kind.__qualname__}"
    names = _names(kind)
    if names is None:
        raise DataError(
            f"{place}: {shown} cannot be part of a file of tasks\n"
            "  tasks of SLURM take None, numbers, text, paths, lists, tuples, dicts, dataclasses, named tuples and "
            "models of pydantic"
        )
    package = kind.__module__.partition(".")[0]
    try:
        if package == "__main__" or _class(f"{kind.__module__}:{kind.__qualname__}", {package}) is not kind:
            raise TypeError
    except (TypeError, AttributeError, ImportError) as error:
        raise DataError(
            f"{place}: {shown} cannot be found by its name in another process, which SLURM's tasks are\n"
            "  define the class at the top of a module that can be imported"
        ) from error
    packages.add(package)
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "fields": {name: _to_json(getattr(value, name), f"{place}.{name}", packages) for name in names},
        **({"given": sorted(value.model_fields_set)} if isinstance(value, BaseModel) else {}),
    }


def _from_json(value: Any, packages: set[str]) -> Any:
    if isinstance(value, list):
        return [_from_json(inner, packages) for inner in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"tuple": inner}:
            return tuple(_from_json(inner, packages))
        case {"dict": items}:
            return {_from_json(key, packages): _from_json(inner, packages) for key, inner in items}
        case {"path": path}:
            return Path(path)
    kind = _class(value["class"], packages)
    given = {name: _from_json(inner, packages) for name, inner in value["fields"].items()}
    if issubclass(kind, BaseModel):  # checked when it was made: paths are expanded, and not to be once more
        return kind.model_construct(set(value["given"]), **given)
    return kind(**given)


def _class(place: str, packages: set[str]) -> type:
    module, _, name = place.partition(":")
    if module.partition(".")[0] not in packages:
        raise TypeError(f"{place} is not of {', '.join(sorted(packages))}")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or found.__module__ != module or _names(found) is None:
        raise TypeError(f"{place} is no class of fields")
    return found
