"""From a file (or preset) and overrides to a checked :class:`RunConfig`.

Values are layered: the ``extends:`` chain, then the file, then the command line. A later layer
replaces single keys. ``training.steps`` and ``training.tokens`` replace each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from megatron_salamandra.config.errors import ConfigError, KeyOrigins
from megatron_salamandra.config.explain import problems_of
from megatron_salamandra.config.former_keys import with_present_keys
from megatron_salamandra.config.overrides import COMMAND_LINE, parse_overrides
from megatron_salamandra.config.presets import preset_names, presets_directory
from megatron_salamandra.config.run_config import RunConfig
from megatron_salamandra.foundation.names import nearest
from megatron_salamandra.foundation.written_paths import WrittenPathError, expanded_path
from megatron_salamandra.foundation.yaml_files import read_yaml_mapping


def load_run_config(path_or_preset: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Load, merge and check a run configuration. Nothing expensive is imported or opened.

    Args:
        path_or_preset: a YAML file, or the name of a preset such as ``salamandra-7b``.
        overrides: ``section.key=value`` strings, read by :func:`parse_overrides`.
    Raises:
        ConfigError: any file, key, type or contradiction; the message has every problem.
    """
    layers = _Layers({"data": {}})
    for source, content in _extends_chain(_locate(path_or_preset, Path())):
        layers.add(content, source)
    layers.add(parse_overrides(overrides), COMMAND_LINE)
    origins = KeyOrigins(layers.origins, fallback=path_or_preset)
    try:
        config = RunConfig.model_validate(layers.values)
    except ValidationError as error:
        raise origins.error(problems_of(error, RunConfig)) from None
    config._origins = origins
    return config


@dataclass
class _Layers:
    """Values merged so far, and who set each of them last."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, content: Mapping[str, Any], source: str) -> None:
        content = with_present_keys(content, source)
        self._merge(self.values, content, "", source)
        if content.get("phases"):
            for key in ("steps", "tokens"):  # each phase has a length of its own
                self._replace("training", key, content)
        self._replace_lengths("training", content)
        phases = content.get("phases")
        for name in phases if isinstance(phases, Mapping) else ():
            self._replace_lengths(f"phases.{name}", content)

    def _replace_lengths(self, section: str, content: Mapping[str, Any]) -> None:
        """A length in steps replaces an earlier one in tokens, and the other way round."""
        for key, other in (("steps", "tokens"), ("tokens", "steps")):
            if self._given(content, f"{section}.{key}"):
                self._replace(section, other, content)

    def _replace(self, section: str, key: str, content: Mapping[str, Any]) -> None:
        """Forget what earlier layers say of a key, unless this one says it as well."""
        full = f"{section}.{key}"
        if not self._given(content, full) and self._given(self.values, full):
            del self._section(self.values, section)[key]
            self.origins.pop(full, None)

    def _merge(self, target: dict[str, Any], content: Mapping[str, Any], prefix: str, source: str) -> None:
        for name, value in content.items():
            key = f"{prefix}{name}"
            if not prefix and value is None and (_is_section(name) or name == "phases"):
                continue  # a section heading with nothing but comments below it
            if isinstance(value, Mapping):
                if not isinstance(target.get(name), dict):
                    self.origins.pop(key, None)
                    target[name] = {}
                if not value:
                    self.origins[key] = source
                self._merge(target[name], value, f"{key}.", source)
            else:
                if isinstance(
                    target.get(name), dict
                ):  # else nothing is below it, and the search takes a while
                    self._forget(key)
                target[name] = value
                self.origins[key] = source

    def _forget(self, key: str) -> None:
        for known in [name for name in self.origins if name == key or name.startswith(key + ".")]:
            del self.origins[known]

    @staticmethod
    def _section(values: Mapping[str, Any], section: str) -> Any:
        inside: Any = values
        for name in section.split("."):
            inside = inside.get(name) if isinstance(inside, Mapping) else None
        return inside

    @classmethod
    def _given(cls, values: Mapping[str, Any], key: str) -> bool:
        section, _, name = key.rpartition(".")
        inside = cls._section(values, section)
        return isinstance(inside, Mapping) and inside.get(name) is not None


def _is_section(name: str) -> bool:
    known = RunConfig.model_fields.get(name)
    return known is not None and isinstance(known.annotation, type)


def _locate(reference: str, relative_to: Path) -> Path:
    """A YAML file relative to ``relative_to``, or a preset by name."""
    if reference.endswith((".yaml", ".yml")) or "/" in reference:
        try:
            path = relative_to / expanded_path(reference)
        except WrittenPathError as error:
            raise ConfigError(str(error)) from None
        if not path.is_file():
            name = Path(reference).stem
            hint = f"\n  {name} is a preset: name it without a path" if name in preset_names() else ""
            raise ConfigError(f"{path}: no such configuration file{hint}")
        return path
    preset = presets_directory() / f"{reference}.yaml"
    if preset.is_file():
        return preset
    names = preset_names()
    near = nearest(reference, names)
    hint = f"; did you mean {near}?" if near else ""
    raise ConfigError(
        f"{reference}: neither a file ending in .yaml nor a preset{hint}\n  presets: {', '.join(names) or 'none'}"
    )


def _extends_chain(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(file name, content) from the most general file to ``path`` itself."""
    chain: list[tuple[str, dict[str, Any]]] = []
    visited: list[Path] = []
    following: Path | None = path
    while following is not None:
        identity = following.resolve()
        if identity in visited:
            route = " -> ".join(str(step) for step in [*visited[visited.index(identity) :], identity])
            raise ConfigError(f"{chain[-1][0]}: extends = a file that extends this one: {route}")
        visited.append(identity)
        content = read_yaml_mapping(following, error_class=ConfigError)
        parent = content.pop("extends", None)
        chain.append((str(following), _with_own_files(content, following.parent)))
        if parent is None:
            following = None
        elif isinstance(parent, str):
            try:
                following = _locate(parent, following.parent)
            except ConfigError as error:
                raise ConfigError(f"{chain[-1][0]}: extends = {parent}: {error}") from None
        else:
            raise ConfigError(f"{following}: extends = {parent!r}; expected one file name or preset name")
    return chain[::-1]


def _with_own_files(content: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The content, with the files of expected text that it names relative to itself."""
    phases = content.get("phases")
    if not isinstance(phases, Mapping):
        return content
    found: dict[str, Any] = {}
    for name, phase in phases.items():
        expected = phase.get("expected") if isinstance(phase, Mapping) else None
        if isinstance(expected, Mapping):
            files = {
                key: str(directory / value)
                for key, value in expected.items()
                if key in ("token_counts", "factors") and isinstance(value, str) and value[:1] not in "~$"
            }
            phase = {**phase, "expected": {**expected, **files}}
        found[name] = phase
    return {**content, "phases": found}
