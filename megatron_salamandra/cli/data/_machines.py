"""Options of machines as settings, with the profile of a cluster and the checks of its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salamandra_data.execution import ExecutorSettings, SlurmSettings
    from salamandra_data.option_groups import ExecutorOptions


def checked_settings(machines: ExecutorOptions) -> ExecutorSettings:
    """The settings of ``machines``; what would wait in SLURM's queue in vain is refused before it is submitted.

    Raises:
        UserError: the cluster's profile, or the options, cannot be used.
    """
    if machines.executor != "slurm":
        return machines.settings()
    from megatron_salamandra.cluster import load_profile

    profile = load_profile(machines.cluster) if machines.cluster is not None else None
    longest = profile.limits.time if profile is not None else None
    return machines.settings(
        profile.without_gpus if profile is not None else None,
        lambda settings, tasks: _check(settings, tasks, longest),
    )


def _check(settings: SlurmSettings, tasks: int, longest: str | None) -> None:
    from megatron_salamandra.cluster import QueueRequest, check_queue, refuse, seconds_of
    from salamandra_data.errors import DataError

    options = {
        "nodes": "1",
        "cpus-per-task": str(settings.cpus_per_task),
        "mem": f"{settings.cpus_per_task * settings.memory_per_cpu_gb}G",
        "partition": settings.partition,
        "time": settings.time,
        "account": settings.account or "",
        "qos": settings.qos or "",
        **settings.options,
    }
    try:
        request = QueueRequest.of_options(options, jobs=tasks)
    except ValueError as error:
        raise DataError(f"--slurm options: {error}") from error
    found = check_queue(request)
    if longest is not None and seconds_of(settings.time) > seconds_of(longest):
        found.object(f"--slurm-time {settings.time} is more than the profile allows\n  at most {longest}")
    refuse(found, forced=False)
    for note in found.notes:
        print(note)
