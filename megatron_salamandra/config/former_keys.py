"""Keys that lay elsewhere once: run directories and checkpoints of earlier versions name them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron_salamandra.config.errors import ConfigError

_MOVED = {("model", "sequence_length"): ("data", "sequence_length")}
"""Former (section, key) -> present one."""


def with_present_keys(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The content of one configuration file, with each key where it is now.

    Raises:
        ConfigError: a key is given in both places; names ``source``.
    """
    present = dict(content)
    for (old_section, old_key), (section, key) in _MOVED.items():
        former = present.get(old_section)
        if not isinstance(former, Mapping) or old_key not in former:
            continue
        target = present.get(section) or {}
        if not isinstance(target, Mapping) or key in target:
            raise ConfigError(
                f"{source}: {old_section}.{old_key} has moved to {section}.{key}, and both are given\n"
                f"  keep {section}.{key}"
            )
        present[old_section] = {name: value for name, value in former.items() if name != old_key}
        present[section] = {**target, key: former[old_key]}
    return present
