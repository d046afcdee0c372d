"""What a start finds in its run directory: whether there is a step to do, and what of the history will change."""

from __future__ import annotations

import logging

from megatron_salamandra.config import RunConfig
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, last_saved_step

STOP_AFTER_STEPS = "training.stop_after_steps"
"""The reason of a stop that the configuration asks for."""


def last_step_of_this_start(config: RunConfig) -> int:
    """The step after which this process ends if nothing else stops it."""
    return min(config.training.stop_after_steps or config.total_steps, config.total_steps)


def nothing_to_do(step: int, config: RunConfig) -> str | None:
    """Why a run that has done ``step`` steps has none to do now; None if it has."""
    if step < last_step_of_this_start(config):
        return None
    total = config.total_steps
    if step > total:
        length = f"training.steps = {total}" if config.training.steps else f"the last step, {total}"
        return f"step {step} is already past {length}"
    if step == total:
        return f"all {total} steps are done"
    return f"{STOP_AFTER_STEPS} = {config.training.stop_after_steps} is reached: step {step} is done"


def tell_lost_steps(directory: RunDirectory, step: int, logger: logging.Logger) -> int:
    """Warn if the run was further than where it starts, because the records of those steps are rewritten.

    Args:
        step: of the checkpoint that the run starts from; 0 without one.
    Returns:
        the last step that the run has a record of; 0 without one.
    """
    saved = last_saved_step(directory)
    records = MetricsLog(directory.metrics).recent()
    reached = records[-1].step if records else 0
    if saved is not None and saved > step:
        logger.warning(
            "this run had saved step %d, and starts from step %d: the steps after it, and what metrics.jsonl says of "
            "them, are done again",
            saved,
            step,
        )
    elif step == 0 and records:
        logger.warning(
            "this run had reached step %d and saved no checkpoint: it starts at step 1 again", reached
        )
    return reached
