"""The program of a job, in the place of its batch shell.

    exec python -m megatron_salamandra.cluster.job [--profile NAME] [--spares K] CONFIG [KEY=VALUE ...]

``launch/pretrain.sbatch`` and the scripts that ``salamandra launch`` writes both end in this line, so that there is one
implementation of rounds, of stopping and of the environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from megatron_salamandra.cluster.container import in_container
from megatron_salamandra.cluster.profile import load_profile
from megatron_salamandra.cluster.run_state import last_step, saved_step
from megatron_salamandra.cluster.slurm import SlurmJob
from megatron_salamandra.cluster.supervise import Progress, Supervisor
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.options import Option, Options, add_options, read_options
from megatron_salamandra.run_directory import RunDirectory


class JobOptions(Options):
    """What the program of a job is told."""

    config: Annotated[str, Option("YAML file or preset", metavar="CONFIG", positional=True)]
    overrides: Annotated[
        tuple[str, ...], Option("overrides", metavar="KEY=VALUE", positional=True, anywhere=True)
    ] = ()
    profile: Annotated[str, Option("the cluster: a profile's name or file", metavar="NAME")] = "generic"
    spares: Annotated[int, Field(ge=0), Option("nodes of the job that are kept for those that fail")] = 0
    container: Annotated[str | None, Option("image to run in", metavar="IMAGE")] = None
    python: Annotated[str | None, Option("interpreter of the ranks; of the image, if there is one")] = None
    chained: Annotated[bool, Option("a further job of the run waits in the queue")] = False


def run_job(options: JobOptions) -> int:
    """Supervise the run until this job has nothing more to do; returns the job's exit code.

    Raises:
        UserError: profile, configuration or job cannot be used.
    """
    job = SlurmJob.current()
    profile = load_profile(options.profile)
    config = load_run_config(options.config, options.overrides)
    nodes = len(job.nodes) - options.spares
    if nodes < 1:
        raise ConfigError(
            f"--spares {options.spares}: the job has {len(job.nodes)} nodes, which leaves none to train on\n"
            f"  allowed: 0 to {len(job.nodes) - 1}"
        )
    config.validate_for_world(nodes * job.tasks_per_node)
    if config.run_dir is None:
        raise ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")
    directory = RunDirectory(config.run_dir.absolute())
    environment = {name: value for name, value in profile.environment.items() if name not in os.environ}
    rank = in_container(
        _rank_command(options),
        profile.container,
        options.container,
        directories=_directories(directory, config),
        working_directory=Path.cwd(),
        environment={**os.environ, **environment},
    )
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", str(profile.cpus_per_task))

    def progress() -> Progress:
        saved = saved_step(directory)
        return Progress(last_step(directory), saved, saved >= config.total_steps)

    return Supervisor(
        job,
        directory.path,
        rank.command,
        progress,
        nodes,
        # Since SLURM 22.05 srun does not inherit --cpus-per-task from the job: tasks would get one CPU each.
        srun_options=(f"--cpus-per-task={cpus}", *rank.srun_options),
        environment=environment,
        chained=options.chained,
        say=lambda line: print(line, flush=True),
    ).run()


def _rank_command(options: JobOptions) -> list[str]:
    python = options.python or ("python3" if options.container else sys.executable)
    # -P keeps the working directory off the module path: what is installed runs, not what happens to lie there.
    alone = ["-P"] if options.container else []
    return [
        python,
        *alone,
        "-u",
        "-m",
        "megatron_salamandra.slurm_rank",
        options.config,
        *options.overrides,
    ]


def _directories(run: RunDirectory, config: RunConfig) -> list[Path]:
    blends = [config.in_phase(number).data.blend for number in range(len(config.phase_names))]
    found = [Path.cwd(), run.path, *(blend.absolute().parent for blend in blends if blend is not None)]
    return list(dict.fromkeys(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; what the user can mend is told without a traceback, once, before any rank is started."""
    parser = argparse.ArgumentParser(
        prog="megatron_salamandra.cluster.job", description="Supervise a run inside a SLURM job."
    )
    add_options(parser, JobOptions)
    try:
        return run_job(read_options(JobOptions, parser.parse_intermixed_args(argv)))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
