"""Options of data commands that say which machines do the work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from megatron_salamandra.cli.data._options import at_least_one

if TYPE_CHECKING:
    from salamandra_data.execution import ExecutorSettings


def add_executor_options(parser: argparse.ArgumentParser, *, cut_into_tasks: bool = True) -> None:
    """``--executor``, ``--workers`` and what SLURM and Ray must be told.

    Args:
        parser: gets the options.
        cut_into_tasks: whether the number of tasks can be chosen.
    """
    parser.add_argument(
        "--executor",
        choices=("local", "slurm", "ray"),
        default="local",
        help="processes of this machine (default), SLURM job arrays, or a Ray cluster; machines share a file system",
    )
    parser.add_argument(
        "--workers",
        type=at_least_one,
        metavar="N",
        help="tasks that run at once (default: 1 on this machine; as many as there are places elsewhere)",
    )
    if cut_into_tasks:
        parser.add_argument(
            "--tasks",
            type=at_least_one,
            metavar="N",
            help="into how many tasks SLURM and Ray cut each stage (default: 64)",
        )
    parser.add_argument(
        "--cpus-per-task", type=at_least_one, metavar="N", help="SLURM and Ray: cores of a task (default: 1)"
    )
    parser.add_argument(
        "--memory-per-cpu",
        type=at_least_one,
        metavar="GIB",
        help="SLURM and Ray: memory of a task per core (default: 4)",
    )
    parser.add_argument("--slurm-partition", metavar="NAME", help="where to run; needed for --executor slurm")
    parser.add_argument("--slurm-time", metavar="TIME", help="limit of one task (default: 04:00:00)")
    parser.add_argument("--slurm-account", metavar="NAME", help="who pays, if the site wants one")
    parser.add_argument("--slurm-qos", metavar="NAME", help="quality of service, if the site wants one")
    parser.add_argument(
        "--slurm-option",
        action="append",
        metavar="NAME[=VALUE]",
        help="a further option of sbatch, such as constraint=highmem or exclusive; may be given several times",
    )
    parser.add_argument(
        "--slurm-setup", metavar="COMMAND", help="shell command before each task, such as 'module load gcc'"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of a running cluster; one is started here if none"
    )


_OF_SLURM = ("slurm_partition", "slurm_time", "slurm_account", "slurm_qos", "slurm_option", "slurm_setup")
_OF_CLUSTERS = ("tasks", "cpus_per_task", "memory_per_cpu")
_OF_OTHERS = {
    "local": (*_OF_CLUSTERS, *_OF_SLURM, "ray_address"),
    "slurm": ("ray_address",),
    "ray": _OF_SLURM,
}
_TASKS = 64


def executor_tasks(arguments: argparse.Namespace) -> int:
    """Into how many tasks a stage is cut where machines do the work."""
    return arguments.tasks or _TASKS


def executor_settings(arguments: argparse.Namespace) -> ExecutorSettings:
    """What the options say.

    Raises:
        ConfigError: an option of another executor was given, or the partition is missing for SLURM.
    """
    from megatron_salamandra.config import ConfigError
    from salamandra_data.execution import LocalSettings, RaySettings, SlurmSettings

    for name in _OF_OTHERS[arguments.executor]:
        if getattr(arguments, name, None) is not None:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} means nothing to --executor {arguments.executor}: leave it away")
    if arguments.executor == "local":
        return LocalSettings(workers=arguments.workers or 1)
    resources = _given(cpus_per_task=arguments.cpus_per_task, memory_per_cpu_gb=arguments.memory_per_cpu)
    if arguments.executor == "ray":
        return RaySettings(address=arguments.ray_address, workers=arguments.workers, **resources)
    if arguments.slurm_partition is None:
        raise ConfigError("--executor slurm: name the partition with --slurm-partition (sinfo lists them)")
    return SlurmSettings(
        partition=arguments.slurm_partition,
        max_running=arguments.workers,
        qos=arguments.slurm_qos,
        account=arguments.slurm_account,
        options=dict(_name_and_value(option) for option in arguments.slurm_option or ()),
        setup=arguments.slurm_setup,
        **_given(time=arguments.slurm_time),
        **resources,
    )


def _given(**values: Any) -> dict[str, Any]:
    """What was given on the command line; the settings have the defaults."""
    return {name: value for name, value in values.items() if value is not None}


def _name_and_value(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name.removeprefix("--"), value
