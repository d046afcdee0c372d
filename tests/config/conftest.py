"""A valid configuration to start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.config import RunConfig, load_run_config

BASE = """\
model: {name: small, layers: 8, hidden_size: 128, ffn_hidden_size: 352, attention_heads: 8, query_groups: 4,
        vocab_size: 1024}
data: {sequence_length: 64}
training: {micro_batch_size: 2, global_batch_size: 32, steps: 100}
optimizer: {lr: 1e-3, warmup_steps: 10}
"""


@pytest.fixture
def base_file(tmp_path: Path) -> Path:
    """File with the smallest useful configuration."""
    path = tmp_path / "base.yaml"
    path.write_text(BASE, encoding="utf-8")
    return path


@pytest.fixture
def load(base_file: Path) -> Callable[..., RunConfig]:
    """Load the base configuration with overrides."""
    return lambda *overrides: load_run_config(str(base_file), overrides)
