"""A run before it is in the queue: its data, its directory, its memory, its time and its disk space."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from megatron_salamandra.cluster.objection import Findings
from megatron_salamandra.cluster.profile import ClusterProfile, seconds_of
from megatron_salamandra.cluster.quota import QuotaUnknown, read_quota
from megatron_salamandra.cluster.run_state import saved_step
from megatron_salamandra.config import RunConfig
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.planning import make_plan, verdict_of
from megatron_salamandra.run_directory import RunDirectory, check_checkpoints_are_there, read_owner
from salamandra_data.blend_plan import BlendPlan

_GIB = 1024**3
START_SECONDS = 600
"""What a start of a run may take on a busy file system, before its first step."""


def check_data(config: RunConfig, found: Findings) -> None:
    """Every phase has a blend whose plan and shards can be read."""
    for number, name in enumerate(config.phase_names):
        blend = config.in_phase(number).data.blend
        if blend is None:
            where = f"phase {name} has no blend" if config.phases else "data.blend is not set"
            found.object(f"{where}\n  name the plan that `salamandra data blend` wrote")
            continue
        try:
            BlendPlan.load(blend)
        except UserError as error:
            found.object(str(error))


def check_directory(directory: RunDirectory, config: RunConfig, found: Findings) -> None:
    """Nobody uses the run directory, its checkpoints are there, it is not finished, and there is room in it."""
    owner = read_owner(directory)
    if owner is not None and owner.lives is not False:
        found.object(
            f"{directory.path} is being used by {owner.description}\n"
            f"  wait for it, `salamandra stop {directory.path}`, or name another run_dir"
        )
    try:
        check_checkpoints_are_there(directory)
    except UserError as error:
        found.object(str(error))
    done = saved_step(directory)
    if done >= config.total_steps:
        found.object(
            f"{directory.path} is finished: step {done} of {config.total_steps} is saved\n"
            "  lengthen it (training.steps), or name another run_dir"
        )
    kept = (config.checkpoint.keep_last or 1) + 1
    # Weights, fp32 master weights and both moments.
    size = make_plan(config).parameters.total * (14 if config.precision == "bf16" else 12)
    check_room(
        "run_dir",
        directory.path,
        size * kept,
        found,
        what=f"{kept} checkpoints of this run take {size * kept / _GIB:.1f} GiB",
        remedy="free space, or lower checkpoint.keep_last",
    )


def check_room(name: str, path: Path, needed: int, found: Findings, *, what: str, remedy: str) -> None:
    """``path`` can be made and written, and ``needed`` bytes fit there: on the disk, and in the user's quota.

    Args:
        name: of the option or key, for the message.
        what: that takes the bytes, in words.
    """
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        found.object(f"{name} = {path}: {existing} cannot be written\n  choose another place")
        return
    free = shutil.disk_usage(existing).free
    if free < needed:
        found.object(f"{existing} has {free / _GIB:.1f} GiB free, and {what}\n  {remedy}", forcible=True)
    try:
        quota = read_quota(existing)
    except QuotaUnknown as error:
        found.note(f"quota of {existing}: could not be checked: {error}")
        return
    if quota is None:
        return
    if quota.bytes_left is not None and quota.bytes_left < needed:
        found.object(
            f"your quota at {existing} has {quota.bytes_left / _GIB:.1f} GiB left, and {what} ({quota.command})\n"
            f"  {remedy}",
            forcible=True,
        )
    if quota.files_left == 0:
        found.object(
            f"your quota at {existing} allows no further file ({quota.command})\n"
            "  remove files, or choose another place"
        )


def check_memory(config: RunConfig, profile: ClusterProfile, world_size: int, found: Findings) -> None:
    """Every rank fits its GPU, if the profile says how much memory that has."""
    if profile.node.gpu_memory_gib is None or config.platform == "host":
        return
    verdict = verdict_of(make_plan(config, world_size).memory, profile.node.gpu_memory_gib)
    if not verdict.fits:
        found.object(
            f"memory of a {profile.node.gpu} {verdict.sentence()}\n"
            "  raise parallel.tensor or parallel.pipeline, lower training.micro_batch_size, or recompute; "
            "`salamandra plan CONFIG --cluster NAME --nodes N` lists layouts that fit",
            forcible=True,
        )


def check_time(time: str | None, profile: ClusterProfile, least: int, what_for: str, found: Findings) -> None:
    """``--time`` can be read, is within what the profile allows, and is enough.

    Args:
        least: seconds that the job needs.
        what_for: those seconds are, in words.
    """
    if time is None:
        return
    try:
        wanted = seconds_of(time)
    except ValueError as error:
        found.object(f"--time: {error}")
        return
    most = None if profile.limits.time is None else seconds_of(profile.limits.time)
    if most is not None and wanted > most:
        found.object(f"--time {time} is more than {profile.name} allows\n  at most {profile.limits.time}")
    if wanted < least:
        found.object(
            f"--time {time}: {wanted} s are not enough {what_for}\n  at least {-(-least // 60)} (minutes)",
            forcible=True,
        )


def check_container(profile: ClusterProfile, image: str | None, found: Findings) -> None:
    """The profile says how to run an image, and an image that is named by a path is there."""
    if image is None:
        return
    if profile.container is None:
        found.object(
            f"--container {image}: the profile {profile.name} names no container runtime\n"
            "  add `container: {runtime: apptainer}` to a profile of your own"
        )
    elif image.startswith(("/", "./", "../")) and not Path(image).exists():
        found.object(f"--container {image} does not exist\n  name an image, or a directory with one")
