"""``salamandra doctor``: what this machine and environment can do."""

from __future__ import annotations

import json
from typing import Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Option, Options


class DoctorOptions(Options):
    """Options of ``salamandra doctor``."""

    json_output: Annotated[bool, Option("print one JSON object instead of the table", flag="--json")] = False


def register(subparsers: Subparsers) -> None:
    """Add ``doctor`` to the command line."""
    add_command(
        subparsers,
        "doctor",
        lambda: DoctorOptions,
        _doctor,
        text="versions, devices and optional libraries of this environment",
        description="Reads nothing but the environment; prints versions, devices and libraries with what each is for, "
        "and marks what is missing, out of the range that this project requires, or cannot be imported. Exit code 1 "
        "when it is something needed.",
    )


def _doctor(options: DoctorOptions) -> int:
    from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE
    from megatron_salamandra.planning import inspect_environment, render_environment

    report = inspect_environment()
    print(json.dumps(report.to_dict(), indent=2) if options.json_output else render_environment(report))
    return EXIT_DONE if report.complete else EXIT_FAILURE
