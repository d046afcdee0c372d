"""What the pages on callbacks, metrics and optimizers promise; that they can be followed, test_pages.py says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from followed_pages import run_shell
from pages import REPOSITORY, blocks


@pytest.fixture
def directory(followed_pages: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "followed"
    shutil.copytree(followed_pages, copy, symlinks=True)
    return copy


def follow(page: str, directory: Path, replace: tuple[str, str] = ("", "")) -> list[str]:
    """Write the page's files, run its commands, and return what they print."""
    printed = []
    for block in blocks(REPOSITORY / "docs" / "how-to" / page):
        text = block.text.replace(*replace) if replace[0] else block.text
        if block.file_name is not None:
            (directory / block.file_name).write_text(text)
        elif block.is_shell:
            printed.append(run_shell(text, directory))
    return printed


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_callback_of_the_page_skips_spikes_and_only_spikes(directory: Path) -> None:
    follow("skip-an-update.md", directory)
    assert not any("skipped" in entry for entry in json_lines(directory / "runs/guarded/metrics.jsonl"))
    shutil.rmtree(directory / "runs/guarded")
    follow("skip-an-update.md", directory, ("{factor: 3.0}", "{factor: 0.01, after_steps: 3}"))
    metrics = json_lines(directory / "runs/guarded/metrics.jsonl")
    assert [entry["step"] for entry in metrics if entry.get("skipped")] == [4, 5, 6]
    events = json_lines(directory / "runs/guarded/events.jsonl")
    assert [event["step"] for event in events if event["event"] == "skip"] == [4, 5, 6]
    state = json.loads((directory / "runs/guarded/checkpoints/step-00000006/state.json").read_text())
    assert state["callbacks"]["SkipSpikes"]["mean"] == pytest.approx(
        sum(entry["grad_norm"] for entry in metrics[:3]) / 3
    )


def test_the_metrics_of_the_page_reach_every_sink(directory: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, csv = follow("add-a-metric.md", directory)
    metrics = json_lines(directory / "runs/measured/metrics.jsonl")
    assert [entry["tokens_left"] for entry in metrics] == [128, 0]
    assert sum(metrics[-1]["drawn"].values()) == 8
    units = json.loads((directory / "runs/measured/units.json").read_text())
    assert (units["tokens_left"], units["loss"]) == ("tokens", "nats/token")
    accumulator = EventAccumulator(str(directory / "runs/measured/tensorboard"))
    accumulator.Reload()
    assert [point.value for point in accumulator.Scalars("tokens_left")] == [128, 0]
    losses = [entry["loss"] for entry in json_lines(directory / "runs/csv/metrics.jsonl")]
    assert csv.splitlines()[-2:] == [f"{step},{loss}" for step, loss in enumerate(losses, start=1)]


def test_the_optimizer_of_the_page_trains(directory: Path) -> None:
    follow("add-an-optimizer.md", directory)
    config = (directory / "runs/sgd/config.yaml").read_text()
    assert "my_optimizers:Sgd" in config
    losses = [entry["loss"] for entry in json_lines(directory / "runs/sgd/metrics.jsonl")]
    assert len(losses) == 2
    assert len(set(losses)) == 2
