"""The closing table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_salamandra.quickstart import QuickstartError
from megatron_salamandra.quickstart.closing_plot import closing_plot
from megatron_salamandra.quickstart.closing_table import closing_table, read_results


def score(step: int, language: str, loss: float) -> dict[str, Any]:
    return {
        "step": step,
        "language": language,
        "loss": loss,
        "perplexity": 1.0,
        "bits_per_byte": loss / 2,
        "tokens": 10,
    }


def write_run(run: Path, steps: list[int]) -> None:
    checkpoint = run / "checkpoints" / "step-00000020"
    checkpoint.mkdir(parents=True)
    ledger = [
        {"language": "ca", "samples": 3, "tokens": 1500, "epochs": 1.5, "next_ordinal": 3},
        {"language": "en", "samples": 1, "tokens": 500, "epochs": 0.25, "next_ordinal": 1},
    ]
    (checkpoint / "state.json").write_text(json.dumps({"step": 20, "ledger": ledger}))
    (checkpoint / "manifest.json").write_text("{}")
    lines = [score(step, name, 9.0 - step / 10) for step in steps for name in ("ca", "en", "macro", "micro")]
    (run / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_languages_come_first_and_averages_last(tmp_path: Path) -> None:
    write_run(tmp_path, [0, 10, 20])
    results = read_results(tmp_path)
    assert [result.language for result in results] == ["ca", "en", "macro", "micro"]
    assert (results[0].tokens, results[0].epochs) == (1500, 1.5)
    assert (results[0].loss_before, results[0].loss_after) == (9.0, 7.0)
    assert (results[0].bits_per_byte_before, results[0].bits_per_byte_after) == (4.5, 3.5)
    assert results[2].tokens == 2000
    table = closing_table(results).splitlines()
    assert table[2].split() == ["ca", "1,500", "1.500", "9.0000", "7.0000", "4.5000", "3.5000"]
    assert table[-1].split()[0] == "micro"


@pytest.mark.parametrize(("steps", "missing"), [([20], 0), ([0], 20), ([], 0)])
def test_a_missing_validation_is_named(tmp_path: Path, steps: list[int], missing: int) -> None:
    write_run(tmp_path, steps)
    with pytest.raises(QuickstartError, match=f"no validation at step {missing}"):
        read_results(tmp_path)


def test_the_plot_names_every_language_and_is_drawn_the_same_twice(tmp_path: Path) -> None:
    write_run(tmp_path, [0, 20])
    drawn = closing_plot(read_results(tmp_path))
    assert drawn == closing_plot(read_results(tmp_path))
    assert drawn.startswith("<svg")
    # matplotlib writes each text as a comment beside its outline.
    assert "<!-- ca -->" in drawn and "<!-- en -->" in drawn and "<!-- macro -->" not in drawn
