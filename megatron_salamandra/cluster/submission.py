"""A job before it is in the queue: what can be known to be wrong is refused here, not by N nodes days later."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from megatron_salamandra.cluster.job_script import JobScript
from megatron_salamandra.cluster.launch_options import LaunchOptions, given_sbatch_options
from megatron_salamandra.cluster.links import JOBS
from megatron_salamandra.cluster.objection import Findings, Refused, refuse
from megatron_salamandra.cluster.profile import ClusterProfile, load_profile
from megatron_salamandra.cluster.queue_checks import QueueRequest, check_queue
from megatron_salamandra.cluster.run_checks import (
    START_SECONDS,
    check_container,
    check_data,
    check_directory,
    check_memory,
    check_room,
    check_time,
)
from megatron_salamandra.cluster.run_state import Pace, pace
from megatron_salamandra.cluster.slurm_command import SlurmAbsent, SlurmError, SlurmSilent, answer
from megatron_salamandra.config import ConfigError, RunConfig, load_run_config
from megatron_salamandra.foundation.atomic_files import atomic_write_text
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.source_revision import source_revision
from megatron_salamandra.run_directory import CONFIG, RunDirectory

_PLACE = "NNNN"
"""Stands for the launch's directory until every check is passed and it is made."""


@dataclass(frozen=True)
class Launch:
    """A job that is ready: its script, and what to tell.

    Attributes:
        job: number of the job, of the first one of a chain; None if nothing was submitted.
        directory: of the run, or of the command's job.
    """

    script: JobScript
    path: Path
    job: str | None
    notes: tuple[str, ...]
    directory: Path


@dataclass(frozen=True)
class _Plan:
    """What is to be submitted, as far as it is known.

    Attributes:
        files: beside the script, name to contents.
        script: of the launch's directory.
        least_seconds, what_for: that the job needs, and what they are for.
    """

    directory: RunDirectory
    files: dict[str, str]
    script: Callable[[Path], JobScript]
    least_seconds: int | None = None
    what_for: str = ""


def launch(options: LaunchOptions, command_problem: str | None = None) -> Launch:
    """Check everything that can be known now, write the job into its directory, and submit it.

    Writes ``launch/NNNN/`` in the run directory (in the job's, for a command) with ``job.sh``, ``config.yaml``
    (resolved, so that later edits do not change a job that waits), ``profile.yaml``, ``command``, ``revision`` and
    ``jobs``. A refused launch leaves nothing behind.

    Args:
        command_problem: what is wrong with ``options.command``; whoever knows the commands says it.
    Raises:
        UserError: with every reason that was found; nothing was submitted.
    """
    profile = load_profile(options.cluster)
    found = Findings()
    if command_problem is not None:
        found.object(command_problem)
    plan = _plan_command(options, profile, found) if options.command else _plan_run(options, profile, found)
    check_container(profile, options.container, found)
    if plan is not None:
        _check_with_slurm(options, plan, found)
    refuse(found, forced=options.force)
    assert plan is not None  # else something was found
    return _submit(options, plan, found.notes)


def _plan_run(options: LaunchOptions, profile: ClusterProfile, found: Findings) -> _Plan | None:
    assert options.nodes is not None and options.config is not None  # checked with the options
    try:
        config = load_run_config(options.config, options.overrides)
    except UserError as error:
        found.object(str(error))
        check_time(options.time, profile, 0, "", found)
        return None
    world_size = options.nodes * profile.tasks_per_node
    try:
        found.note(f"layout {config.validate_for_world(world_size).describe()}, {world_size} ranks")
    except UserError as error:
        found.object(str(error))
    else:
        check_memory(config, profile, world_size, found)
    check_data(config, found)
    if config.run_dir is None:
        found.object(str(ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")))
        check_time(options.time, profile, 0, "", found)
        return None
    directory = RunDirectory(config.run_dir.absolute())
    check_directory(directory, config, found)
    known = pace(directory) if directory.path.is_dir() else Pace(None, None, None)
    lead = known.stop_seconds()
    what_for = f"for a start ({START_SECONDS} s) and a stop with a save ({lead} s)"
    check_time(options.time, profile, START_SECONDS + lead, what_for, found)
    if options.chain == 1 and not profile.limits.may_requeue:
        found.note(
            f"{profile.name} puts no job back into the queue: --chain N lets N jobs follow on each other"
        )

    def script(place: Path) -> JobScript:
        return _script(options, profile, directory, place, lead, [str(place / CONFIG)])

    files = _files(options, profile, config)
    return _Plan(directory, files, script, START_SECONDS + lead, what_for)


def _plan_command(options: LaunchOptions, profile: ClusterProfile, found: Findings) -> _Plan | None:
    check_time(options.time, profile, 0, "", found)
    tasks = options.tasks or 1
    if tasks > profile.tasks_per_node * profile.cpus_per_task:
        found.object(
            f"--tasks {tasks}: a job of {profile.name} has {profile.tasks_per_node * profile.cpus_per_task} cores\n"
            "  ask for fewer"
        )
    if options.cpu and not profile.without_gpus:
        found.object(
            f"--cpu: the profile {profile.name} does not say how jobs without GPUs are submitted\n"
            "  add `without_gpus: {partition: NAME}` to a profile of your own, or leave --cpu away"
        )
    directory = RunDirectory(_job_directory(options, found).absolute())
    check_room("--job-dir", directory.path, 0, found, what="", remedy="")

    def script(place: Path) -> JobScript:
        arguments = ["--job-dir", str(directory.path), "--", *options.command]
        return _script(options, profile, directory, place, _COMMAND_LEAD_SECONDS, arguments, tasks)

    return _Plan(directory, _files(options, profile, None), script)


_NAME = re.compile(r"[A-Za-z][\w-]*")
_COMMAND_LEAD_SECONDS = 120
"""Before the time limit, for a command that keeps what it has when it is told to end."""


def _job_directory(options: LaunchOptions, found: Findings) -> Path:
    """Where a command's job has its log, its rounds and its script."""
    if options.job_dir is not None:
        if options.job_dir.exists() and (not options.job_dir.is_dir() or any(options.job_dir.iterdir())):
            found.object(
                f"--job-dir {options.job_dir} is not empty\n  every job has a directory of its own: name a new one"
            )
        return options.job_dir
    words = options.command[1:2] if options.command[0] == "-m" else options.command
    named = itertools.takewhile(_NAME.fullmatch, words[:2])
    name = "-".join(named) or "command"
    number = 1
    while (place := Path("jobs") / f"{name}-{number:04d}").exists():
        number += 1
    return place


def _script(
    options: LaunchOptions,
    profile: ClusterProfile,
    directory: RunDirectory,
    place: Path,
    lead: int,
    what: list[str],
    tasks: int | None = None,
) -> JobScript:
    arguments = ["--profile", str(place / "profile.yaml"), "--spares", str(options.spares)]
    if options.container is not None:
        arguments += ["--container", options.container]
    if options.chain > 1:
        arguments += ["--chained", "--launch-dir", str(place)]
    if not options.node_check:
        arguments.append("--no-node-check")
    return JobScript(
        profile,
        directory.path.name,
        (options.nodes or 1) + options.spares,
        options.time,
        lead,
        directory.logs / "job-%j.log",
        Path.cwd(),
        sys.executable,
        [*arguments, *what],
        given_sbatch_options(options),
        tasks,
        options.cpu,
    )


def _files(options: LaunchOptions, profile: ClusterProfile, config: RunConfig | None) -> dict[str, str]:
    files = {
        "profile.yaml": yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False),
        # With the directory that its relative paths are of.
        "command": f"cd {shlex.quote(str(Path.cwd()))}\n{shlex.join(['salamandra', *sys.argv[1:]])}\n",
        "revision": f"{source_revision() or 'installed package'}\n",
    }
    return files if config is None else {CONFIG: config.to_yaml(), **files}


def _check_with_slurm(options: LaunchOptions, plan: _Plan, found: Findings) -> None:
    script = plan.script(plan.directory.launches / _PLACE)
    try:
        request = QueueRequest.of_options(script.options(), jobs=options.chain)
    except ValueError as error:
        if options.time is None or str(error) not in "".join(entry.text for entry in found.objections):
            found.object(f"options of sbatch: {error}")
        return
    queue = check_queue(request, plan.least_seconds, plan.what_for)
    found.take(queue)
    if queue.objections:  # sbatch would say the same in other words
        return
    try:
        # From a file that nobody keeps: what is refused leaves nothing behind.
        with tempfile.NamedTemporaryFile("w", prefix="salamandra-", suffix=".sh") as file:
            file.write(script.render())
            file.flush()
            answer(["sbatch", "--test-only", file.name])
    except SlurmAbsent:
        if options.dry_run:
            found.note("sbatch is not on this machine: its own checks were left out")
        else:
            found.object(
                "sbatch is not on this machine\n  go to a login node, or write the script with --dry-run"
            )
    except SlurmSilent as error:
        found.object(f"{error}\n  SLURM's controller does not answer: try again later")
    except SlurmError as error:
        found.object(
            f"sbatch refuses the job: {_reason(error)}\n  see --sbatch, and the profile's `sbatch` options"
        )


def _submit(options: LaunchOptions, plan: _Plan, notes: list[str]) -> Launch:
    with _made(plan.directory) as place:
        script = plan.script(place)
        path = place / "job.sh"
        for name, contents in plan.files.items():
            atomic_write_text(place / name, contents)
        atomic_write_text(path, script.render())
        if options.dry_run:
            return Launch(script, path, None, tuple(notes), plan.directory.path)
        jobs: list[str] = []
        while len(jobs) < options.chain:
            # Each waits for the one before it, however that ended.
            after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
            try:
                jobs.append(answer(["sbatch", "--parsable", *after, str(path)]).split(";")[0].strip())
            except SlurmSilent as error:
                atomic_write_text(place / JOBS, "".join(f"{job}\n" for job in jobs))
                raise _Unknown(
                    f"{error}\n  the job may be in the queue or not: look with squeue --me"
                ) from error
            except SlurmError as error:
                if not jobs:
                    raise Refused(f"sbatch refuses the job: {_reason(error)}") from error
                notes.append(f"only {len(jobs)} of {options.chain} jobs are in the queue: {_reason(error)}")
                break
            # After each: the first may start before the last is in the queue.
            atomic_write_text(place / JOBS, "".join(f"{job}\n" for job in jobs))
        return Launch(script, path, jobs[0], tuple(notes), plan.directory.path)


class _Unknown(UserError):
    """It is not known whether a job was submitted."""


@contextlib.contextmanager
def _made(directory: RunDirectory) -> Iterator[Path]:
    """A new directory for a launch, with that of the logs beside it; taken away again if sbatch refuses the job."""
    wanted = (directory.logs, directory.launches)
    missing = [path for leaf in wanted for path in (leaf, *leaf.parents) if not path.exists()]
    for path in wanted:
        path.mkdir(parents=True, exist_ok=True)
    place = _next_place(directory)
    try:
        yield place
    except Refused:
        shutil.rmtree(place, ignore_errors=True)
        for path in sorted(set(missing), key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # somebody else's by now
                path.rmdir()
        raise


def _next_place(directory: RunDirectory) -> Path:
    root = directory.launches
    taken = [int(path.name) for path in root.glob("[0-9]*") if path.name.isdecimal()]
    while True:
        place = root / f"{max(taken, default=0) + 1:04d}"
        with contextlib.suppress(FileExistsError):
            place.mkdir()
            return place
        taken.append(int(place.name))


def _reason(error: SlurmError) -> str:
    """What sbatch says, without its name before it."""
    text = str(error).partition(": ")[2] or str(error)
    lines = [line.removeprefix("sbatch: error: ").removeprefix("sbatch: ") for line in text.splitlines()]
    return "; ".join(line for line in lines if line.strip())
