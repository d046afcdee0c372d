"""What the pages on callbacks, metrics and optimizers promise; that they can be followed, test_pages.py says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from followed_page import FollowedPage
from followed_pages import run_shell
from pages import REPOSITORY, blocks

HOW_TO = REPOSITORY / "docs" / "how-to"
Follow = Callable[[Path], FollowedPage]


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_callback_of_the_page_skips_spikes_and_only_spikes(follow: Follow, tmp_path: Path) -> None:
    page = HOW_TO / "skip-an-update.md"
    directory = tmp_path / "followed"
    shutil.copytree(follow(page).directory, directory, symlinks=True)
    assert not any("skipped" in entry for entry in json_lines(directory / "runs/guarded/metrics.jsonl"))
    shutil.rmtree(directory / "runs/guarded")
    (command,) = [block.text for block in blocks(page) if block.is_shell]
    assert "{factor: 3.0}" in command
    run_shell(command.replace("{factor: 3.0}", "{factor: 0.01, after_steps: 3}"), directory)
    metrics = json_lines(directory / "runs/guarded/metrics.jsonl")
    assert [entry["step"] for entry in metrics if entry.get("skipped")] == [4, 5, 6]
    events = json_lines(directory / "runs/guarded/events.jsonl")
    assert [event["step"] for event in events if event["event"] == "skip"] == [4, 5, 6]
    state = json.loads((directory / "runs/guarded/checkpoints/step-00000006/state.json").read_text())
    assert state["callbacks"]["SkipSpikes"]["mean"] == pytest.approx(
        sum(entry["grad_norm"] for entry in metrics[:3]) / 3
    )


def test_the_metrics_of_the_page_reach_every_sink(follow: Follow) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    page = follow(HOW_TO / "add-a-metric.md")
    directory = page.directory
    _, csv = [printed for printed in page.printed if printed]
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


def test_the_optimizer_of_the_page_trains(follow: Follow) -> None:
    directory = follow(HOW_TO / "add-an-optimizer.md").directory
    config = (directory / "runs/sgd/config.yaml").read_text()
    assert "my_optimizers:Sgd" in config
    losses = [entry["loss"] for entry in json_lines(directory / "runs/sgd/metrics.jsonl")]
    assert len(losses) == 2
    assert len(set(losses)) == 2
