"""Metrics by name, the places they go, and what a full disk does to those."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rank_jobs import SMALL_CONFIG, train_with_little_room
from training_runs import TrainingRuns

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.run_directory import MetricsLog, RunDirectory
from megatron_salamandra.training import LanguageScore, Metric, Sink
from megatron_salamandra.training.logs import start_logging, stop_logging
from megatron_salamandra.training.metrics.book import MetricBook
from megatron_salamandra.training.metrics.files import RunFiles
from megatron_salamandra.training.metrics.sinks import SinkList
from megatron_salamandra.training.metrics.tensorboard import TensorBoard
from megatron_salamandra.training.metrics.trackers import MlFlow, WeightsAndBiases

LOSS = [Metric(("loss",), 1.5, "nats/token"), Metric(("mfu",), None), Metric(("seconds", "data"), 0.25, "s")]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """What is written beyond ``size`` fails as on a full disk, after what still fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


def test_a_name_is_recorded_once_in_a_step() -> None:
    book = MetricBook()
    book.record("seconds/data", 1.0, "s")
    for name in ("seconds/data", "seconds", "seconds/data/more"):
        with pytest.raises(ValueError, match="recorded already"):
            book.record(name, 2.0)
    for name in ("", "a//b", "two words", "step", "step/x"):
        with pytest.raises(ValueError, match="name"):
            book.record(name, 2.0)
    with pytest.raises(TypeError, match="record a number"):
        book.record("loss", "1.0")  # type: ignore[arg-type]
    assert [metric.name for metric in book.take()] == ["seconds/data"]
    book.record("seconds/data", 1.0, "s")


def test_every_number_of_a_step_reaches_tensorboard(runs: TrainingRuns) -> None:
    overrides = ["training.steps=4", "optimizer.warmup_steps=1", "logging.tensorboard=true"]
    name = "all-curves"
    assert runs.train(name, 2, *overrides, "logging.console_every_steps=2", "validation.at_end=true") == 0
    last, curves = runs.metrics(name)[-1], runs.root / name / "tensorboard"
    for tag, value in {
        "train/loss": last["loss"],
        "speed/tokens_per_second_per_rank": last["tokens_per_second_per_rank"],
        "memory/peak_bytes": last["peak_memory_bytes"],
        "speed/data_seconds": last["seconds"]["data"],
        "seconds/forward_backward": last["seconds"]["forward_backward"],
        "seconds/optimizer": last["seconds"]["optimizer"],
        "seconds/decide": last["seconds"]["decide"],
        "seconds_between_steps/callbacks": last["seconds_between_steps"]["callbacks"],
        "seconds_between_steps/checkpoint": last["seconds_between_steps"]["checkpoint"],
        "languages/ga/tokens": last["languages"]["ga"]["tokens"],
        "languages/ga/epochs": last["languages"]["ga"]["epochs"],
    }.items():
        assert scalars(curves, tag)[-1] == (4, pytest.approx(value)), tag
    assert last["mfu"] is None  # nobody knows the peak of a CPU
    units = json.loads((runs.root / name / "units.json").read_text())
    assert units["seconds/data"] == "s"


def test_a_start_from_nothing_takes_back_the_points_of_the_start_before(tmp_path: Path) -> None:
    """Step 0 among them: a validation before the first step."""
    scores = [LanguageScore("macro", 2.0, math.exp(2), 1.0, 10)]
    for loss in (3.0, 4.0):
        board = TensorBoard(tmp_path)
        board.open(-1)
        board.write_validation(0, scores)
        board.write(1, [Metric(("loss",), loss)])
        board.close()
    assert [step for step, _ in scalars(tmp_path, "validation_loss/macro")] == [0]
    assert scalars(tmp_path, "train/loss") == [(1, 4.0)]
    board = TensorBoard(tmp_path)
    board.open(1)  # a resume at step 1 keeps it
    board.write(2, [Metric(("loss",), 5.0)])
    board.open(0)  # a roll-back to step 0
    board.write(1, [Metric(("loss",), 6.0)])
    assert scalars(tmp_path, "train/loss") == [(1, 6.0)]


def test_tensorboard_lives_through_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sinks = SinkList([TensorBoard(tmp_path)], logging.getLogger("test"))
    sinks.open(-1)
    for step in (1, 2):
        sinks.write(step, LOSS)
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    with no_file_above(size + 10):
        for step in (3, 4):
            sinks.write(step, LOSS)
        assert file.stat().st_size == size  # what still fitted of a record is taken back
    for step in (5, 6):
        sinks.write(step, LOSS)
    sinks.close()
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [1, 2, 5, 6]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "tensorboard/ cannot be written, training goes on without it",
        "tensorboard/ is written again; 2 records are missing from it",
    ]


def test_a_torn_line_of_metrics_glues_nothing(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    sink = RunFiles(directory)
    sink.open(-1)
    sink.write(1, LOSS)
    size = directory.metrics.stat().st_size
    with no_file_above(size + 20), pytest.raises(OSError, match="File too large"):
        sink.write(2, LOSS)
    assert directory.metrics.stat().st_size == size + 20
    sink.write(3, LOSS)
    assert [record.step for record in MetricsLog(directory.metrics).read()] == [1, 3]
    sink.open(2)
    assert [json.loads(line)["step"] for line in directory.metrics.read_text().splitlines()] == [1]


def test_a_full_disk_under_the_metrics_is_told_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RunDirectory(tmp_path)
    sinks = SinkList([RunFiles(directory)], logging.getLogger("test"))
    sinks.open(-1)
    sinks.write(1, LOSS)
    with no_file_above(directory.metrics.stat().st_size + 20):
        for step in (2, 3, 4):
            sinks.write(step, LOSS)
    for step in (5, 6):
        sinks.write(step, LOSS)
    sinks.close()
    assert [record.step for record in MetricsLog(directory.metrics).read()] == [1, 5, 6]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "metrics.jsonl cannot be written, training goes on without it",
        "metrics.jsonl is written again; 3 records are missing from it",
    ]


def test_closing_does_not_show_that_the_metrics_are_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sinks = SinkList([RunFiles(RunDirectory(tmp_path / "nowhere"))], logging.getLogger("test"))
    sinks.open(-1)
    sinks.write(1, LOSS)
    sinks.close()
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "metrics.jsonl cannot be written"
    ]


class Broken(Sink):
    """Fails at every call."""

    name = "a broken sink"

    def open(self, step: int) -> None:
        raise RuntimeError("no")

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        raise MemoryError

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        raise KeyError("language")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_sink_that_always_fails_is_told_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = RunFiles(RunDirectory(tmp_path))
    sinks = SinkList([Broken(), files], logging.getLogger("test"))
    sinks.open(-1)
    for step in (1, 2, 3):
        sinks.write(step, LOSS)
        sinks.write_validation(step, [])
    sinks.close()
    assert len(MetricsLog(tmp_path / "metrics.jsonl").read()) == 3
    assert len(caplog.records) == 1


def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = start_logging(tmp_path / "rank-0000.log", rank=1)
    with no_file_above(10):
        for number in range(3):
            logger.info("line %d of a log that has no room", number)
        stop_logging(logger)
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_training_lives_through_a_disk_that_fills(runs: TrainingRuns) -> None:
    """No file of the run may grow beyond 12 kB; its metrics, events, log and curves would."""
    name = "little-room"
    overrides = ["training.steps=40", "checkpoint.at_end=false", "logging.tensorboard=true"]
    assert runs.run_job(train_with_little_room, name, 1, *overrides, "validation.every_steps=2") == 0
    entries = MetricsLog(runs.root / name / "metrics.jsonl").read()
    assert [entry.step for entry in entries] == list(range(1, len(entries) + 1))
    assert 10 < len(entries) < 40
    assert len(scalars(runs.root / name / "tensorboard", "train/loss")) < 40


@pytest.mark.parametrize("key", ["wandb_project", "mlflow_experiment"])
def test_a_tracker_that_is_not_installed_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = key.partition("_")[0]
    monkeypatch.setitem(sys.modules, module, None)
    config = load_run_config(str(SMALL_CONFIG), [f"logging.{key}=mine"])
    with pytest.raises(ConfigError, match=f"logging.{key} is set, but the module {module} is not installed"):
        config.validate_packages()


class Calls:
    """Stands for a module: notes every call, answers with itself."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.made.append((name, arguments, options))
            return [] if name == "search_runs" else self

        return call


def run_in(directory: Path) -> Any:
    config = load_run_config(str(SMALL_CONFIG), [f"run_dir={directory}"])
    return types.SimpleNamespace(config=config, directory=RunDirectory(directory))


def test_weights_and_biases_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setitem(sys.modules, "wandb", calls)
    sink = WeightsAndBiases(run_in(tmp_path), "multilingual")
    sink.open(-1)
    sink.write(1, LOSS)
    sink.write_validation(1, [LanguageScore("ga", 2.0, 7.4, 1.0, 10)])
    sink.close()
    (init,) = [options for name, _, options in calls.made if name == "init"]
    assert (init["project"], init["resume"]) == ("multilingual", "allow")
    assert init["config"]["model"]["name"] == "small"
    logged = [arguments[0] for name, arguments, _ in calls.made if name == "log"]
    assert logged == [
        {"step": 1, "loss": 1.5, "seconds/data": 0.25},
        {"step": 1, "validation_loss/ga": 2.0, "validation_bits_per_byte/ga": 1.0},
    ]
    assert calls.made[-1][0] == "finish"


def test_mlflow_gets_every_number_that_it_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    calls.experiment_id = "7"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", calls)
    sink = MlFlow(run_in(tmp_path), "multilingual")
    sink.open(-1)
    sink.write(3, [*LOSS, Metric(("sources", "en (web)"), math.inf), Metric(("sources", "a+b"), 2)])
    sink.close()
    assert [arguments for name, arguments, _ in calls.made if name == "set_experiment"] == [("multilingual",)]
    (logged,) = [(arguments[0], options) for name, arguments, options in calls.made if name == "log_metrics"]
    assert logged == ({"loss": 1.5, "seconds/data": 0.25, "sources/a_b": 2.0}, {"step": 3})
    assert calls.made[-1][0] == "end_run"
