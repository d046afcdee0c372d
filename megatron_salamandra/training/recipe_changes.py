"""What of the recipe a resumed run changes: allowed, and logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.foundation.yaml_files import read_yaml_mapping
from megatron_salamandra.run_directory import CONFIG, CheckpointError

_SECTIONS = ("training", "optimizer")
"""Every key counts, but neither the length of the run nor what changes no number."""
_FREE_KEYS = ("steps", "tokens", "stop_after_steps", "garbage_collection_steps", "profile")
_DATA_KEYS = ("document_masking", "reset_positions")
"""Of the rest of ``data``, what decides the samples is refused, and what does not is free."""


@dataclass(frozen=True)
class SettingChange:
    """One setting: its dotted key, what the checkpoint was trained with, and what the run has now."""

    key: str
    before: Any
    now: Any


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[SettingChange]:
    """Every setting of the recipe that differs between two resolved configurations, as plain mappings."""
    keys = [
        "precision",
        "callbacks",
        *(f"{section}.{key}" for section in _SECTIONS for key in now[section] if key not in _FREE_KEYS),
        *(f"data.{key}" for key in _DATA_KEYS),
    ]
    pairs = ((key, _value(before, key), _value(now, key)) for key in keys)
    return [SettingChange(key, was, is_now) for key, was, is_now in pairs if was != is_now]


def check_same_optimizer(checkpoint: Path, config: RunConfig) -> None:
    """Refuse moments that mean something else.

    Raises:
        ConfigError: the checkpoint was trained with another ``optimizer.name``.
    """
    saved = read_yaml_mapping(checkpoint / CONFIG, error_class=CheckpointError)
    before, now = _value(saved, "optimizer.name"), config.optimizer.name
    if before != now:
        raise ConfigError(
            f"optimizer.name = {now} is not that of {checkpoint}, {before}: its moments would mean something else\n"
            f"  use {before}, or start a new run_dir"
        )


def _value(config: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    inside = config.get(section, {}) if section else config
    return inside[name] if name in inside else _default(section, name)


def _default(section: str, name: str) -> Any:
    """What a configuration of before the key meant: the default keeps what was done without it."""
    model = RunConfig.model_fields[section].annotation if section else RunConfig
    assert isinstance(model, type) and issubclass(model, BaseModel)
    return to_jsonable_python(model.model_fields[name].get_default(call_default_factory=True))
