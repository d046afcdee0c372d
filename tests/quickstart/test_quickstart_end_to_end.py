"""The whole quick start on small stand-ins for the packages: no network, two ranks, few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from megatron_salamandra.quickstart import QuickstartJob, run_quickstart

TRAINING = (
    "platform=host",
    "training.steps=4",
    "optimizer.warmup_steps=1",
    "model.layers=2",
    "model.hidden_size=32",
    "model.ffn_hidden_size=64",
    "model.attention_heads=4",
    "model.query_groups=2",
    "data.sequence_length=64",
    "training.micro_batch_size=2",
    "training.global_batch_size=4",
    "validation.samples_per_language=1",
    "logging.tensorboard=false",
)


@pytest.mark.slow
def test_from_packages_to_generated_text(
    tmp_path: Path,
    write_demo_wheels: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    job = QuickstartJob(
        out=tmp_path / "q", ranks=2, vocab_size=700, validation_fraction=0.3, overrides=TRAINING
    )
    write_demo_wheels(job.downloads, messages=60)
    run_quickstart(job)

    said = capsys.readouterr().out
    assert "stopped at step 2 with everything saved (exit code 75)" in said
    assert "bits/byte before" in said
    assert {path.name for path in job.out.iterdir()} >= {
        "corpus",
        "tokenizer",
        "shards",
        "blend.yaml",
        "run",
        "hf",
    }
    sources = yaml.safe_load(job.blend.read_text())["sources"]
    assert len(sources) == 36
    report = json.loads(job.report.read_text())
    assert len(report["languages"]) == 38
    assert report["logits"]["max_difference"] <= 1e-4
    assert set(report["texts"]) == {"ca", "es", "en"}
    events = [json.loads(line) for line in (job.run / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] in ("start", "resume")] == [
        "start",
        "resume",
    ]

    run_quickstart(job)
    assert capsys.readouterr().out.count("unchanged since it was done") == 10


def test_an_impossible_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "megatron_salamandra.cli", "quickstart", "--out", str(tmp_path / "q")]
    done = subprocess.run(
        [*command, "platform=host", "model.attention_heads=3"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "attention_heads" in done.stderr
    assert not (tmp_path / "q").exists()
