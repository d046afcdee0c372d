"""Repeats the steps up to an incident in a run of its own, to tell whether text and model did it or a machine.

Training is exact: the same steps from the same checkpoint in the same layout give the same bits. So a spike that comes
again is of the data, the recipe or the code, and one that does not was made by hardware.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.config import RunConfig, load_run_config
from megatron_salamandra.foundation.json_files import read_json_object
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.local_launch import default_ranks, run_ranks
from megatron_salamandra.run_directory import (
    Incident,
    IncidentError,
    MetricsLog,
    RunDirectory,
    complete_checkpoints,
    read_incident,
    read_state,
    step_of,
    verify_checkpoint,
)
from megatron_salamandra.timeline import trained_steps


@dataclass(frozen=True)
class Replay:
    """What became of an incident's step the second time.

    Attributes:
        incident: as it was recorded.
        directory: of the run that repeated it.
        loss, grad_norm: of the step now; None if it did not come to the step.
    """

    incident: Incident
    directory: Path
    loss: float | None
    grad_norm: float | None

    @property
    def reproduced(self) -> bool:
        """Whether loss and gradient norm are those of the incident, to the bit; two that are no numbers are equal."""
        pairs = ((self.loss, self.incident.loss), (self.grad_norm, self.incident.grad_norm))
        return all(repr(now) == repr(before) for now, before in pairs)


def replay_incident(run: Path, number: int, ranks: int | None, signals: SignalWatch) -> Replay:
    """Train from the newest checkpoint before an incident up to its step, in ``RUN/incidents/NNNN-replay``.

    Args:
        run: run directory.
        number: of the incident.
        ranks: processes to start; None means as many as the run had, which bit-equality needs.
        signals: the caller's watch, which hands over to this function.
    Raises:
        IncidentError: there is no such incident, or its step had other samples than it would have now.
        CheckpointError: the checkpoint is damaged.
    """
    source = RunDirectory(run)
    incident = read_incident(source.incidents, number)
    before = [path for path in complete_checkpoints(source.checkpoints) if step_of(path) < incident.step]
    config = load_run_config(str(source.config))
    if before:
        verify_checkpoint(before[-1])
    _check_samples(incident, config, before[-1] if before else None)
    target = RunDirectory(source.incidents / f"{number:04d}-replay")
    shutil.rmtree(target.path, ignore_errors=True)
    target.checkpoints.mkdir(parents=True)
    if before:
        (target.checkpoints / before[-1].name).symlink_to(before[-1].resolve(), target_is_directory=True)
    overrides = [
        f"run_dir={json.dumps(str(target.path.absolute()))}",
        f"training.stop_after_steps={incident.step}",
        "checkpoint.every_steps=null",
        "checkpoint.at_end=false",
        "checkpoint.keep_last=null",
        "validation.every_steps=null",
        "validation.at_start=false",
        "validation.at_end=false",
        "logging.tensorboard=false",
        "logging.wandb_project=null",
        "logging.mlflow_experiment=null",
    ]
    # Going back would lead away from the step; whether it is skipped does not change what is measured of it.
    for key in ("on_spike", "on_nonfinite"):
        if getattr(config.guard, key) == "roll_back":
            overrides.append(f"guard.{key}=skip")
    again = load_run_config(str(source.config), overrides)
    count = ranks or _ranks_of(source) or default_ranks(config)
    run_ranks("megatron_salamandra.train", [str(source.config), *overrides], count, signals, again)
    shutil.rmtree(target.checkpoints, ignore_errors=True)  # what counts is in metrics and incidents
    return Replay(incident, target.path, *_found(target, incident.step))


def _check_samples(incident: Incident, config: RunConfig, checkpoint: Path | None) -> None:
    trained = trained_steps(read_state(checkpoint).values) if checkpoint else None
    timeline = config.timeline.going_on_from(trained) if trained else config.timeline
    samples = timeline.step_samples(incident.step)
    if (samples[0], samples[-1]) != tuple(incident.samples):
        start = checkpoint.name if checkpoint else "the run's start"
        raise IncidentError(
            f"incident {incident.number} cannot be replayed: from {start} step {incident.step} has samples "
            f"{samples[0]} to {samples[-1]}, and the incident had {incident.samples[0]} to {incident.samples[1]}\n"
            "  the checkpoint from before it is gone, or the run was rolled back in between"
        )


def _ranks_of(run: RunDirectory) -> int | None:
    if not run.environment.is_file():
        return None
    ranks = read_json_object(run.environment).get("ranks")
    return ranks if isinstance(ranks, int) else None


def _found(run: RunDirectory, step: int) -> tuple[float | None, float | None]:
    """Loss and gradient norm of a step that was repeated: an incident again, or a step like the others."""
    for number in range(1, 1 + len(list(run.incidents.glob("*.json")))):
        again = read_incident(run.incidents, number)
        if again.step == step:
            return again.loss, again.grad_norm
    for record in MetricsLog(run.metrics).read():
        if record.step == step:
            return record.loss, float(record.values["grad_norm"])
    return None, None
