"""Options of ``salamandra launch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from megatron_salamandra.foundation.options import Count, Option, Options

_OTHERWISE = {
    "account": "use --account",
    "qos": "use --qos",
    "time": "use --time",
    "nodes": "use --nodes and --spares",
    "ntasks": "it follows from --nodes and the profile's tasks_per_node",
    "ntasks-per-node": "set tasks_per_node in a profile of your own",
    "array": "a run is one job; --chain lets several follow on each other",
    "wrap": "the script is written here",
    "parsable": "it is given already",
    "test-only": "use --dry-run",
}


class LaunchOptions(Options):
    """What is to run, and how it is submitted: a configuration and overrides, or a command after two dashes."""

    config: Annotated[
        str | None, Option("YAML file or preset of a run", metavar="CONFIG", positional=True)
    ] = None
    overrides: Annotated[
        tuple[str, ...], Option("overrides", metavar="KEY=VALUE", positional=True, anywhere=True)
    ] = ()
    command: Annotated[
        tuple[str, ...],
        Option("a salamandra command, or -m MODULE ..., instead of a run", after_dashes=True),
    ] = ()
    cluster: Annotated[str, Option("the cluster: a profile's name or YAML file", metavar="NAME")]
    nodes: Annotated[Count | None, Option("nodes that train; a command has one unless said", metavar="N")] = (
        None
    )
    spares: Annotated[int, Field(ge=0), Option("nodes beyond, for those that fail", metavar="K")] = 0
    time: Annotated[str | None, Option("time limit of the job, such as 12:00:00 or 3-00:00:00")] = None
    account: Annotated[str | None, Option("whom the hours are charged to")] = None
    qos: Annotated[str | None, Option("quality of service, instead of the profile's")] = None
    container: Annotated[str | None, Option("image that the ranks run in", metavar="IMAGE")] = None
    chain: Annotated[
        Count, Option("jobs that follow on each other, where a site forbids requeueing", metavar="N")
    ] = 1
    node_check: Annotated[
        bool, Option("start rounds without looking at the nodes first", flag="--no-node-check")
    ] = True
    tasks: Annotated[
        Count | None, Option("of a command: processes on each node", default_text="1", metavar="N")
    ] = None
    cpu: Annotated[
        bool, Option("of a command: it needs no GPU; takes the profile's options for such jobs")
    ] = False
    job_dir: Annotated[
        Path | None,
        Option(
            "of a command: new directory for its log and script",
            default_text="jobs/COMMAND-NNNN",
            metavar="DIR",
        ),
    ] = None
    sbatch: Annotated[
        tuple[str, ...],
        Option("any option of sbatch, such as reservation=x", metavar="NAME=VALUE", repeat=True),
    ] = ()
    dry_run: Annotated[bool, Option("check and write the script, but do not submit it")] = False
    force: Annotated[
        bool,
        Option(
            "submit although an estimate (memory, disk space, time) or a count of today speaks against it"
        ),
    ] = False

    @model_validator(mode="after")
    def _a_run_or_a_command(self) -> Self:
        if self.command and self.config is not None:
            raise ValueError(
                f"{self.config} and a command after --: name a run's configuration, or a command, not both"
            )
        if not self.command and self.config is None:
            raise ValueError("name a run's CONFIG, or a command after --")
        if self.command and not self.node_check:
            raise ValueError("--no-node-check is for runs: nodes are not looked at before a command")
        if not self.command:
            if self.nodes is None:
                raise ValueError("--nodes is required")
            of_commands = {"--tasks": self.tasks, "--cpu": self.cpu, "--job-dir": self.job_dir}
            for flag, value in of_commands.items():
                if value:
                    raise ValueError(
                        f"{flag} is for commands: a run has the profile's tasks, and its run_dir"
                    )
        return self

    @model_validator(mode="after")
    def _nothing_that_is_set_otherwise(self) -> Self:
        for name, value in map(name_and_value, self.sbatch):
            written = f"--sbatch {name}{f'={value}' if value else ''}"
            if name in _OTHERWISE:
                raise ValueError(f"{written}: {_OTHERWISE[name]}")
            if len(name) < 2 or "\n" in value:
                raise ValueError(
                    f"{written}: give an option of sbatch by its long name, such as reservation=x"
                )
        return self


def name_and_value(option: str) -> tuple[str, str]:
    """The two parts of ``NAME=VALUE``; the value is empty where there is none."""
    name, _, value = option.partition("=")
    return name.lstrip("-"), value


def given_sbatch_options(options: LaunchOptions) -> dict[str, str]:
    """What the command line says to sbatch, by long names."""
    named = {"account": options.account, "qos": options.qos}
    given = {name: value for name, value in named.items() if value is not None}
    return {**given, **dict(map(name_and_value, options.sbatch))}
