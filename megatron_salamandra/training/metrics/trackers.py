"""Weights & Biases and MLflow, for those who have them installed and ask for them."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from megatron_salamandra.foundation.packages import require
from megatron_salamandra.training.metrics.book import Metric
from megatron_salamandra.training.metrics.sinks import Sink
from megatron_salamandra.training.report import LanguageScore
from megatron_salamandra.training.run_view import Run

_NOT_IN_MLFLOW_NAMES = re.compile(r"[^A-Za-z0-9_\-. /]")


def _identity(run: Run) -> str:
    """The same for every start in one run directory."""
    place = os.path.abspath(run.directory.path)
    return f"{os.path.basename(place)}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def _numbers(metrics: Sequence[Metric]) -> dict[str, float]:
    return {metric.name: float(metric.value) for metric in metrics if metric.value is not None}


def _scores(scores: Sequence[LanguageScore]) -> dict[str, float]:
    losses = {f"validation_loss/{score.language}": score.loss for score in scores}
    return losses | {f"validation_bits_per_byte/{score.language}": score.bits_per_byte for score in scores}


class WeightsAndBiases(Sink):
    """``logging.wandb_project``. Log-in, server and mode are wandb's own business (WANDB_* in the environment)."""

    name = "Weights & Biases"

    def __init__(self, run: Run, project: str) -> None:
        self._run = run
        self._project = project
        self._wandb_run: Any = None

    def open(self, step: int) -> None:
        if self._wandb_run is None:
            wandb = require("wandb", extra="wandb", purpose="logging.wandb_project")
            name = _identity(self._run)
            self._wandb_run = wandb.init(
                project=self._project,
                id=name,
                name=name,
                dir=str(self._run.directory.path),
                resume="allow",
                config=self._run.config.to_dict(),
            )
            # wandb's own step only grows; ours goes back when a run repeats steps.
            self._wandb_run.define_metric("step")
            self._wandb_run.define_metric("*", step_metric="step")

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        self._wandb_run.log({"step": step, **_numbers(metrics)})

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        self._wandb_run.log({"step": step, **_scores(scores)})

    def close(self) -> None:
        if self._wandb_run is not None:
            self._wandb_run.finish()


class MlFlow(Sink):
    """``logging.mlflow_experiment``. The server is mlflow's own business (MLFLOW_TRACKING_URI)."""

    name = "MLflow"

    def __init__(self, run: Run, experiment: str) -> None:
        self._run = run
        self._experiment = experiment
        self._mlflow: Any = None

    def open(self, step: int) -> None:
        if self._mlflow is None:
            mlflow = require("mlflow", extra="mlflow", purpose="logging.mlflow_experiment")
            experiment = mlflow.set_experiment(self._experiment)
            name = _identity(self._run)
            found = mlflow.MlflowClient().search_runs(
                [experiment.experiment_id], f"tags.mlflow.runName = '{name}'", max_results=1
            )
            mlflow.start_run(run_id=found[0].info.run_id) if found else mlflow.start_run(run_name=name)
            self._mlflow = mlflow

    def write(self, step: int, metrics: Sequence[Metric]) -> None:
        self._log(_numbers(metrics), step)

    def write_validation(self, step: int, scores: Sequence[LanguageScore]) -> None:
        self._log(_scores(scores), step)

    def _log(self, values: dict[str, float], step: int) -> None:
        finite = {
            _NOT_IN_MLFLOW_NAMES.sub("_", name): value
            for name, value in values.items()
            if math.isfinite(value)
        }
        self._mlflow.log_metrics(finite, step=step)

    def close(self) -> None:
        if self._mlflow is not None:
            self._mlflow.end_run()
