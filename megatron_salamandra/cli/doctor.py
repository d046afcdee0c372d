"""``salamandra doctor``: what this machine and environment can do."""

from __future__ import annotations

import argparse
import json

from megatron_salamandra.cli._command import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add ``doctor`` to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="versions, devices and optional libraries of this environment",
        description="Reads nothing but the environment; prints versions, devices and which optional libraries "
        "are there, with what each is for. Exit code 1 when something needed is missing.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from megatron_salamandra.planning.environment import inspect_environment, render_environment

    report = inspect_environment()
    print(json.dumps(report.to_dict(), indent=2) if arguments.json else render_environment(report))
    return 0 if report.complete else 1
