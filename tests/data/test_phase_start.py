"""The frozen start of a run that goes on from another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_salamandra.data import PhaseStart
from salamandra_data.errors import DataError

START = PhaseStart(
    Path("/runs/pretraining"), "step-00000020", ("en", "no"), {"ca": 10**12, "no": 0, "català": 3}
)


def test_what_was_frozen_is_read_again(tmp_path: Path) -> None:
    START.freeze(tmp_path)
    assert PhaseStart.load(tmp_path) == START
    assert [path.name for path in tmp_path.iterdir()] == ["ordinals.lock.yaml"]


@pytest.mark.parametrize("contents", ["", "- a\n", "continue_from: /a\n", "start_ordinals: 3\n", "a: [\n"])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, contents: str) -> None:
    (tmp_path / "ordinals.lock.yaml").write_text(contents)
    with pytest.raises(DataError, match=r"ordinals.lock.yaml: cannot be read.*\n  restore it"):
        PhaseStart.load(tmp_path)
