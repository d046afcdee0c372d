"""The training run, in two halves: stopped in the middle, and resumed."""

from __future__ import annotations

import shlex

from megatron_salamandra.config import RunConfig, load_run_config
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.local_launch import run_ranks
from megatron_salamandra.planning import make_plan, render_plan
from megatron_salamandra.quickstart.errors import QuickstartError
from megatron_salamandra.quickstart.job import CONFIG, QuickstartJob
from megatron_salamandra.quickstart.rank_layout import layout_overrides
from megatron_salamandra.quickstart.stage_book import Stage
from megatron_salamandra.run_directory import RunDirectory, latest_checkpoint, read_state


def run_overrides(job: QuickstartJob, ranks: int) -> list[str]:
    """What the quick start sets on top of its preset; the user's own overrides come last."""
    return [
        f"run_dir={job.run}",
        f"data.blend={job.blend}",
        f"model.vocab_size={job.vocab_size}",
        *layout_overrides(ranks),
        *job.overrides,
    ]


def training_stages(job: QuickstartJob, ranks: int, config: RunConfig) -> list[Stage]:
    """Show the plan, train half-way and stop, resume and finish.

    The half-way stop goes through the same door as a time limit on a cluster: save, exit code 75.
    """
    total = config.total_steps
    half = max(total // 2, 1)
    overrides = run_overrides(job, ranks)
    inputs = {"config": config.to_yaml(), "ranks": ranks}
    return [
        Stage("plan", "plan of the run", inputs, [], lambda: _show_plan(overrides, ranks)),
        Stage(
            "train",
            f"train to step {half:,} of {total:,} and stop",
            {},
            [job.run],
            lambda: _train(job, ranks, [*overrides, f"training.stop_after_steps={half}"], half, total),
        ),
        Stage(
            "resume",
            f"resume and train to step {total:,}",
            {},
            [],
            lambda: _train(job, ranks, overrides, total, total),
        ),
    ]


def _show_plan(overrides: list[str], ranks: int) -> None:
    print(render_plan(make_plan(load_run_config(CONFIG, overrides), ranks)))


def _train(job: QuickstartJob, ranks: int, overrides: list[str], last_step: int, total: int) -> None:
    if _trained_steps(job) >= last_step:
        print(f"step {last_step:,} was reached before")
        return
    arguments = [CONFIG, *overrides]
    print(
        f"as a command: torchrun --nproc-per-node {ranks} -m megatron_salamandra.train {shlex.join(arguments)}"
    )
    print(f"logs of the ranks: {job.run}/logs/", flush=True)
    code = run_ranks("megatron_salamandra.train", arguments, ranks, config=load_run_config(CONFIG, overrides))
    expected = 0 if last_step == total else EXIT_STOPPED
    if code != expected:
        raise QuickstartError(
            f"training ended with exit code {code}, expected {expected}\n"
            f"  see {job.run}/logs/rank-*.log; the same command goes on from the last checkpoint, --fresh starts over"
        )
    reached = _trained_steps(job)
    if reached != last_step:
        raise QuickstartError(
            f"{job.run}/checkpoints: the last checkpoint is of step {reached}, expected {last_step}\n"
            f"  see {job.run}/logs/rank-0000.log"
        )
    if code == EXIT_STOPPED:
        print(f"stopped at step {reached:,} with everything saved (exit code {code})")


def _trained_steps(job: QuickstartJob) -> int:
    directory = latest_checkpoint(RunDirectory(job.run).checkpoints)
    return 0 if directory is None else read_state(directory).step
