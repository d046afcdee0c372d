"""What a checkpoint records besides tensors: typed, and forgiving only where older versions wrote less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_salamandra.run_directory import CheckpointError, CheckpointState, LedgerRecord, read_state

ENTRY = {"language": "ca", "samples": 3, "tokens": 192, "epochs": 0.5, "next_ordinal": 3}


def test_what_is_recorded_is_what_is_read(tmp_path: Path) -> None:
    ledger = LedgerRecord("ca-web", "ca", 3, 192, 0.5, 3)
    state = CheckpointState.record(
        step=3,
        total_steps=6,
        consumed_samples=12,
        consumed_tokens=768,
        position=None,
        skipped_updates=1,
        callbacks={"Guard": {"seen": 2}},
        phase_streams=["ab12"],
        stream="abc",
        layout="TP1",
        versions={"torch": None},
        ledger=[ledger],
    )
    (tmp_path / "state.json").write_text(json.dumps(state.values))
    found = read_state(tmp_path)
    assert found.values == state.values
    assert (found.step, found.total_steps, found.consumed_samples, found.consumed_tokens) == (3, 6, 12, 768)
    assert (found.skipped_updates, found.callbacks, found.stream) == (1, {"Guard": {"seen": 2}}, "abc")
    assert found.ledger == [ledger]


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"step": 3, "ledger": [ENTRY]}))
    state = read_state(tmp_path)
    assert (state.skipped_updates, dict(state.callbacks)) == (0, {})
    assert state.ledger == [LedgerRecord("ca", "ca", 3, 192, 0.5, 3)]


@pytest.mark.parametrize(
    ("key", "value"), [("step", "three"), ("step", None), ("ledger", [{}]), ("ledger", 5), ("ledger", ["ca"])]
)
def test_what_is_missing_or_of_another_kind_is_refused_by_file_and_key(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "state.json"
    for contents in ({}, {key: value}):
        path.write_text(json.dumps(contents))
        with pytest.raises(CheckpointError, match=f"{path}.*{key}"):
            getattr(read_state(tmp_path), key)
