"""A run before it is in the queue: what can be known to be wrong is refused here, not by N nodes days later."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from megatron_salamandra.cluster.job_script import JobScript
from megatron_salamandra.cluster.profile import ClusterProfile, load_profile, seconds_of
from megatron_salamandra.cluster.run_state import pace, saved_step
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE
from megatron_salamandra.foundation.options import Count, Option, Options
from megatron_salamandra.planning import make_plan
from megatron_salamandra.run_directory import CONFIG, RunDirectory, check_checkpoints_are_there, read_owner
from salamandra_data.blend_plan import BlendPlan

_GIB = 1024**3
MEMORY_SLACK = 1.15
"""Allowance over the planned memory of a rank for what the plan does not count: allocator, buffers, the context."""
START_SECONDS = 600
"""What a start of a run may take on a busy file system, before its first step."""


class Refused(UserError):
    """The job would fail, so it was not submitted."""

    exit_code = EXIT_USAGE


class LaunchOptions(Options):
    """Options of ``salamandra launch``."""

    config: Annotated[str, Option("YAML file or preset", metavar="CONFIG", positional=True)]
    overrides: Annotated[
        tuple[str, ...], Option("overrides", metavar="KEY=VALUE", positional=True, anywhere=True)
    ] = ()
    cluster: Annotated[str, Option("the cluster: a profile's name or YAML file", metavar="NAME")]
    nodes: Annotated[Count, Option("nodes that train", metavar="N")]
    spares: Annotated[int, Field(ge=0), Option("nodes beyond, for those that fail", metavar="K")] = 0
    time: Annotated[str | None, Option("time limit of the job, such as 12:00:00 or 3-00:00:00")] = None
    account: Annotated[str | None, Option("whom the hours are charged to")] = None
    qos: Annotated[str | None, Option("quality of service, instead of the profile's")] = None
    container: Annotated[str | None, Option("image that the ranks run in", metavar="IMAGE")] = None
    chain: Annotated[
        Count, Option("jobs that follow on each other, where a site forbids requeueing", metavar="N")
    ] = 1
    sbatch: Annotated[
        tuple[str, ...],
        Option("any option of sbatch, such as reservation=x", metavar="NAME=VALUE", repeat=True),
    ] = ()
    dry_run: Annotated[bool, Option("check and write the script, but do not submit it")] = False
    force: Annotated[bool, Option("submit although the planned memory does not fit the GPU")] = False


@dataclass(frozen=True)
class Launch:
    """A job that is ready: its script, and what to tell."""

    script: JobScript
    path: Path
    job: str | None
    notes: tuple[str, ...]


def launch(options: LaunchOptions) -> Launch:
    """Check everything that can be known now, write the job into the run directory, and submit it.

    Writes ``run_dir/launch/NNNN/`` with ``job.sh``, ``config.yaml`` (resolved, so that later edits do not change a job
    that waits) and ``profile.yaml``.

    Raises:
        UserError: with every reason that was found; nothing was submitted.
    """
    profile = load_profile(options.cluster)
    config = load_run_config(options.config, options.overrides)
    if config.run_dir is None:
        raise ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")
    directory = RunDirectory(config.run_dir.absolute())
    layout = config.validate_for_world(options.nodes * profile.tasks_per_node)
    problems = [
        *_data_problems(config),
        *_directory_problems(directory, config),
        *_time_problems(options, profile, directory),
        *([] if options.force else _memory_problems(config, profile, layout.world_size)),
    ]
    if problems:
        raise Refused("\n".join(problems))
    place = _next_place(directory)
    script = _script(options, profile, directory, place)
    atomic_write_text(place / CONFIG, config.to_yaml())
    atomic_write_text(
        place / "profile.yaml", yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False)
    )
    atomic_write_text(place / "job.sh", script.render())
    atomic_write_text(place / "command", " ".join(sys.argv) + "\n")
    directory.logs.mkdir(parents=True, exist_ok=True)
    notes = [f"layout {layout.describe()}, {layout.world_size} ranks"]
    path = place / "job.sh"
    if shutil.which("sbatch") is None:
        if not options.dry_run:
            raise Refused(
                f"sbatch is not on this machine; the script is {path}\n  copy it to a login node, or --dry-run"
            )
        return Launch(
            script, path, None, (*notes, "sbatch is not on this machine: its own checks were left out")
        )
    _ask_sbatch("--test-only", str(path))
    if options.dry_run:
        return Launch(script, path, None, tuple(notes))
    first = _ask_sbatch("--parsable", str(path)).split(";")[0].strip()
    for _ in range(options.chain - 1):
        _ask_sbatch("--parsable", f"--dependency=afterany:{first}", str(path))
    return Launch(script, path, first, tuple(notes))


def _data_problems(config: RunConfig) -> Iterator[str]:
    for number, name in enumerate(config.phase_names):
        blend = config.in_phase(number).data.blend
        if blend is None:
            where = f"phase {name} has no blend" if config.phases else "data.blend is not set"
            yield f"{where}\n  name the plan that `salamandra data blend` wrote"
            continue
        try:
            BlendPlan.load(blend)
        except UserError as error:
            yield str(error)


def _directory_problems(directory: RunDirectory, config: RunConfig) -> Iterator[str]:
    owner = read_owner(directory)
    if owner is not None and owner.lives is not False:
        yield (
            f"{directory.path} is being used by {owner.description}\n"
            f"  wait for it, `salamandra stop {directory.path}`, or name another run_dir"
        )
    try:
        check_checkpoints_are_there(directory)
    except UserError as error:
        yield str(error)
    done = saved_step(directory)
    if done >= config.total_steps:
        yield (
            f"{directory.path} is finished: step {done} of {config.total_steps} is saved\n"
            "  lengthen it (training.steps), or name another run_dir"
        )
    existing = next(place for place in (directory.path, *directory.path.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield f"run_dir = {directory.path}: {existing} cannot be written\n  choose another place"
        return
    kept = (config.checkpoint.keep_last or 1) + 1
    needed, free = _checkpoint_bytes(config) * kept, shutil.disk_usage(existing).free
    if free < needed:
        yield (
            f"{existing} has {free / _GIB:.1f} GiB free, and {kept} checkpoints of this run take "
            f"{needed / _GIB:.1f} GiB\n  free space, or lower checkpoint.keep_last"
        )


def _checkpoint_bytes(config: RunConfig) -> int:
    """Weights, fp32 master weights and both moments."""
    parameters = make_plan(config).parameters.total
    return parameters * (14 if config.precision == "bf16" else 12)


def _time_problems(options: LaunchOptions, profile: ClusterProfile, directory: RunDirectory) -> Iterator[str]:
    if options.time is None:
        return
    try:
        wanted = seconds_of(options.time)
    except ValueError as error:
        yield f"--time: {error}"
        return
    most = None if profile.limits.time is None else seconds_of(profile.limits.time)
    if most is not None and wanted > most:
        yield f"--time {options.time} is more than {profile.name} allows\n  at most {profile.limits.time}"
    least = START_SECONDS + pace(directory).stop_seconds()
    if wanted < least:
        yield (
            f"--time {options.time}: {wanted} s are not enough for a start ({START_SECONDS} s) and a stop with a save "
            f"({least - START_SECONDS} s)\n  at least {-(-least // 60)} (minutes)"
        )


def _memory_problems(config: RunConfig, profile: ClusterProfile, world_size: int) -> Iterator[str]:
    if profile.node.gpu_memory_gib is None or config.platform == "host":
        return
    ranks = make_plan(config, world_size).memory
    largest = max(ranks, key=lambda rank: rank.total_bytes)
    planned, card = largest.total_bytes / _GIB, profile.node.gpu_memory_gib
    if planned * MEMORY_SLACK > card:
        yield (
            f"pipeline rank {largest.pipeline_rank} needs {planned * MEMORY_SLACK:.1f} GiB ({planned:.1f} GiB planned, "
            f"and {MEMORY_SLACK - 1:.0%} for what is not), but a {profile.node.gpu} has {card:g}\n"
            "  raise parallel.tensor or parallel.pipeline, lower training.micro_batch_size, or recompute; --force "
            "submits it all the same"
        )


def _next_place(directory: RunDirectory) -> Path:
    root = directory.launches
    taken = [int(path.name) for path in root.glob("[0-9]*") if path.name.isdecimal()] if root.is_dir() else []
    while True:
        place = root / f"{max(taken, default=0) + 1:04d}"
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=True)
            return place
        taken.append(int(place.name))


def _script(
    options: LaunchOptions, profile: ClusterProfile, directory: RunDirectory, place: Path
) -> JobScript:
    sbatch = {"account": options.account, "qos": options.qos}
    given = {name: value for name, value in sbatch.items() if value is not None}
    for pair in options.sbatch:
        name, _, value = pair.partition("=")
        given[name.lstrip("-")] = value
    arguments = ["--profile", str(place / "profile.yaml"), "--spares", str(options.spares)]
    if options.container is not None:
        arguments += ["--container", options.container]
    if options.chain > 1:
        arguments.append("--chained")
    return JobScript(
        profile,
        directory.path.name,
        options.nodes + options.spares,
        options.time,
        pace(directory).stop_seconds(),
        directory.logs / "job-%j.log",
        Path.cwd(),
        sys.executable,
        [*arguments, str(place / CONFIG)],
        given,
    )


def _ask_sbatch(*arguments: str) -> str:
    done = subprocess.run(["sbatch", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().removeprefix("sbatch: error: ")
        raise Refused(f"sbatch refuses the job: {reason}\n  the script is {arguments[-1]}")
    return done.stdout
