"""Configurations that were made to hurt are refused in one message, soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from megatron_salamandra.config import ConfigError, load_run_config


def refused(path: Path, *overrides: str, seconds: float = 30) -> str:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_run_config(str(path), overrides)
    assert time.process_time() - began < seconds
    return str(caught.value)


def test_thousands_of_unknown_keys_take_no_longer_than_reading_them(tmp_path: Path) -> None:
    base, path = tmp_path / "base.yaml", tmp_path / "run.yaml"
    keys = "".join(f"  unknown_key_number_{number}: 1\n" for number in range(8000))
    base.write_text(f"training:\n{keys}")
    path.write_text(f"extends: base.yaml\ntraining:\n{keys}{keys.replace('unknown', 'other')}")
    message = refused(path, seconds=60)
    assert "training.unknown_key_number_0 is not a known key" in message and "more problems" in message
    assert len(message) < 200_000


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    lines = ["a: &a [1,1,1,1,1,1,1,1,1]"]
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True):
        lines.append(f"{name}: &{name} [{','.join(['*' + before] * 9)}]")
    path.write_text("\n".join(lines) + "\n")
    assert "more than 100,000 values" in refused(path)
