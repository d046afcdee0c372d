"""The program of a job, in the place of its batch shell.

    exec python -m megatron_salamandra.cluster.job [--profile NAME] [--spares K] CONFIG [KEY=VALUE ...]
    exec python -m megatron_salamandra.cluster.job [--profile NAME] --job-dir DIR -- COMMAND ...

The scripts in ``launch/`` and those that ``salamandra launch`` writes all end in such a line, so that there is one
implementation of rounds, of stopping and of the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from megatron_salamandra.cluster.container import RankCommand, in_container
from megatron_salamandra.cluster.fit_nodes import NodeCheck
from megatron_salamandra.cluster.links import cancel_links, waiting_links
from megatron_salamandra.cluster.profile import ClusterProfile, load_profile
from megatron_salamandra.cluster.rank_report import read_reports
from megatron_salamandra.cluster.round_book import RoundBook
from megatron_salamandra.cluster.round_watch import Watch
from megatron_salamandra.cluster.rounds import Action, Patience
from megatron_salamandra.cluster.run_state import Progress, last_step, pace, saved_step
from megatron_salamandra.cluster.slurm import SlurmJob
from megatron_salamandra.cluster.supervise import Supervisor
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE
from megatron_salamandra.foundation.options import (
    Option,
    Options,
    add_options,
    read_options,
    split_at_dashes,
)
from megatron_salamandra.run_directory import RunDirectory

_PATIENCE_WITH_COMMANDS = Patience(waits_seconds=(60.0,))
"""A command that failed is tried once more: whatever was wrong with the node may have passed."""
_NEVER_HUNG = Watch(start_seconds=math.inf, beat_seconds=math.inf)
"""Commands do not beat; the time limit ends those that hang."""

_REPORT_SECONDS = 25.0
"""Less than SLURM leaves a cancelled job (KillWait, 30 s unless a site says otherwise)."""


class JobOptions(Options):
    """What the program of a job is told."""

    config: Annotated[str | None, Option("YAML file or preset", metavar="CONFIG", positional=True)] = None
    overrides: Annotated[
        tuple[str, ...], Option("overrides", metavar="KEY=VALUE", positional=True, anywhere=True)
    ] = ()
    command: Annotated[tuple[str, ...], Option("a command, instead of a run", after_dashes=True)] = ()
    profile: Annotated[str, Option("the cluster: a profile's name or file", metavar="NAME")] = "generic"
    spares: Annotated[int, Field(ge=0), Option("nodes of the job that are kept for those that fail")] = 0
    container: Annotated[str | None, Option("image to run in", metavar="IMAGE")] = None
    python: Annotated[str | None, Option("interpreter of the ranks; of the image, if there is one")] = None
    node_check: Annotated[
        bool, Option("start rounds without looking at the nodes first", flag="--no-node-check")
    ] = True
    lead: Annotated[
        int, Field(ge=0), Option("seconds between SLURM's signal and the time limit", metavar="SECONDS")
    ] = 0
    job_dir: Annotated[Path | None, Option("of a command: directory of its rounds", metavar="DIR")] = None
    chained: Annotated[bool, Option("further jobs of the run may wait in the queue")] = False
    launch_dir: Annotated[Path | None, Option("with --chained: directory that has their numbers")] = None

    @model_validator(mode="after")
    def _a_run_or_a_command(self) -> Self:
        if (self.config is None) == (not self.command):
            raise ValueError("name a run's CONFIG, or a command after --")
        if self.command and self.job_dir is None:
            raise ValueError("--job-dir is required with a command")
        return self


def run_job(options: JobOptions) -> int:
    """Supervise the run, or the command, until this job has nothing more to do; returns the job's exit code.

    Raises:
        UserError: profile, configuration or job cannot be used.
    """
    job = SlurmJob.current()
    nodes = len(job.nodes) - options.spares
    if nodes < 1:
        raise ConfigError(
            f"--spares {options.spares}: the job has {len(job.nodes)} nodes, which leaves none to train on\n"
            f"  allowed: 0 to {len(job.nodes) - 1}"
        )
    if options.config is None:
        assert options.job_dir is not None  # checked with the options
        directory = RunDirectory(options.job_dir.absolute())
        progress, seen = _command_progress(directory), [Path.cwd(), directory.path]
        watch = _NEVER_HUNG
        platform = None
    else:
        config = load_run_config(options.config, options.overrides)
        config.validate_for_world(nodes * job.tasks_per_node)
        if config.run_dir is None:
            raise ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")
        directory = RunDirectory(config.run_dir.absolute())
        progress, seen = _run_progress(directory, config), _directories(directory, config)
        watch = Watch.later_than(config.hangs)
        platform = config.platform
    links = waiting_links(options.launch_dir, job.job) if options.launch_dir is not None else ()
    supervisor = _supervisor(
        options, job, nodes, directory, progress, seen, watch, platform, chained=bool(links)
    )
    code = supervisor.run()
    rounds = RoundBook(directory.path).read()
    over = progress().done or bool(rounds and rounds[-1].decision.action is Action.END)
    if links and over:
        # They would wait for hours and take all nodes, to find that nothing is left to do.
        cancel_links(links)
        print(f"cancelled the further jobs of the chain: {', '.join(links)}", flush=True)
    return code


def _supervisor(
    options: JobOptions,
    job: SlurmJob,
    nodes: int,
    directory: RunDirectory,
    progress: Callable[[], Progress],
    seen: Sequence[Path],
    watch: Watch,
    platform: str | None,
    *,
    chained: bool,
) -> Supervisor:
    profile = load_profile(options.profile)
    environment = {name: value for name, value in profile.environment.items() if name not in os.environ}

    def contained(command: Sequence[str]) -> RankCommand:
        return in_container(
            command,
            profile.container,
            options.container,
            directories=seen,
            working_directory=Path.cwd(),
            environment=profile.environment,
        )

    rank = contained(_rank_command(options))
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", str(profile.cpus_per_task))
    of_commands = options.config is None
    return Supervisor(
        job,
        directory.path,
        rank.command,
        progress,
        nodes,
        # Since SLURM 22.05 srun does not inherit --cpus-per-task from the job: tasks would get one CPU each.
        srun_options=(f"--cpus-per-task={cpus}", *rank.srun_options),
        environment={**environment, **rank.environment},
        watch=watch,
        patience=_PATIENCE_WITH_COMMANDS if of_commands else Patience(),
        stop_seconds=lambda: pace(directory).stop_seconds(),
        lead_seconds=options.lead,
        chained=chained,
        node_check=_node_check(options, profile, platform, job, contained),
        say=lambda line: print(line, flush=True),
        at_end=lambda: _write_report(directory),
    )


def _run_progress(directory: RunDirectory, config: RunConfig) -> Callable[[], Progress]:
    def progress() -> Progress:
        saved = saved_step(directory)
        return Progress(last_step(directory), saved, saved >= config.total_steps)

    return progress


def _command_progress(directory: RunDirectory) -> Callable[[], Progress]:
    """A command has no steps: it is done when its last round's first task ended well."""

    def progress() -> Progress:
        rounds = sorted(directory.control.glob("round-*"))
        codes = [report.code for report in read_reports(rounds[-1]) if report.rank == 0] if rounds else []
        return Progress(0, 0, codes == [EXIT_DONE])

    return progress


def _write_report(directory: RunDirectory) -> None:
    """In a process of its own, so that whatever becomes of it neither fails the job nor holds it up."""
    command = [sys.executable, "-m", "megatron_salamandra.report", str(directory.path)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, timeout=_REPORT_SECONDS, check=False)


def _python(options: JobOptions) -> list[str]:
    python = options.python or ("python3" if options.container else sys.executable)
    # -P keeps the working directory off the module path: what is installed runs, not what happens to lie there.
    return [python, *(["-P"] if options.container else []), "-u", "-m"]


def _node_check(
    options: JobOptions,
    profile: ClusterProfile,
    platform: str | None,
    job: SlurmJob,
    contained: Callable[[Sequence[str]], RankCommand],
) -> NodeCheck | None:
    """How nodes are checked: as ranks run, but one task with all CPUs of a node's ranks; commands check none."""
    if platform is None or not (options.node_check and profile.node_check):
        return None
    task = contained([*_python(options), "megatron_salamandra.node_check"])
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", profile.cpus_per_task)) * job.tasks_per_node
    gpus = {"host": 0, "cuda": job.tasks_per_node}.get(platform)
    environment = {name: value for name, value in profile.environment.items() if name not in os.environ}
    # Matrix products on CPUs are to use all of them.
    environment["OMP_NUM_THREADS"] = str(cpus)
    return NodeCheck(task.command, (f"--cpus-per-task={cpus}", *task.srun_options), environment, gpus)


def _rank_command(options: JobOptions) -> list[str]:
    what = (
        ["megatron_salamandra.slurm_task", *options.command]
        if options.config is None
        else ["megatron_salamandra.slurm_rank", options.config, *options.overrides]
    )
    return [*_python(options), *what]


def _directories(run: RunDirectory, config: RunConfig) -> list[Path]:
    blends = [config.in_phase(number).data.blend for number in range(len(config.phase_names))]
    found = [Path.cwd(), run.path, *(blend.absolute().parent for blend in blends if blend is not None)]
    return list(dict.fromkeys(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; what the user can mend is told without a traceback, once, before any rank is started."""
    parser = argparse.ArgumentParser(
        prog="megatron_salamandra.cluster.job", description="Supervise a run or a command inside a SLURM job."
    )
    add_options(parser, JobOptions)
    before, command = split_at_dashes(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parser.parse_intermixed_args(before)
        arguments.command = command
        return run_job(read_options(JobOptions, arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
