"""``salamandra doctor``: what this machine, its storage and its cluster can do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, Options

if TYPE_CHECKING:
    from megatron_salamandra.doctor import Section


class DoctorOptions(Options):
    """Options of ``salamandra doctor``."""

    node: Annotated[bool, Option("check this node as before a round: devices, network, memory, disk")] = False
    cluster: Annotated[bool, Option("ask SLURM for its settings, partitions, accounts and QoS")] = False
    storage: Annotated[
        Path | None,
        Option("check a directory as a place for runs; with a run's, its saves count", metavar="DIR"),
    ] = None
    certify: Annotated[
        tuple[str, ...],
        Option("instead, prove in place: layouts, resume, kernels, requeue (a job)", metavar="NAME"),
    ] = ()
    out: Annotated[Path, Option("of certificates: where they run and are written", metavar="DIR")] = Path(
        "certificates"
    )
    profile: Annotated[
        str | None, Option("of requeue: the cluster, a profile's name or file", metavar="NAME")
    ] = None
    nodes: Annotated[Count, Option("of requeue: nodes of the job", metavar="N")] = 1
    account: Annotated[str | None, Option("of requeue: whom the job is charged to")] = None
    qos: Annotated[str | None, Option("of requeue: quality of service")] = None
    json_output: Annotated[bool, Option("print one JSON object instead of the table", flag="--json")] = False


def register(subparsers: Subparsers) -> None:
    """Add ``doctor`` to the command line."""
    add_command(
        subparsers,
        "doctor",
        lambda: DoctorOptions,
        _doctor,
        text="versions, devices and optional libraries; on request the node, its storage, its cluster",
        description="Reads nothing but the environment; prints versions, devices and libraries with what each is for, "
        "and marks what is missing, out of the range that this project requires, or cannot be imported. Further "
        "sections on request. ! marks what is broken, ? a warning, - what could not be looked at. Exit code 1 when "
        "something needed is broken.",
    )


def _doctor(options: DoctorOptions) -> int:
    if options.certify:
        return _certify(options)
    from megatron_salamandra.doctor import render_sections
    from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE
    from megatron_salamandra.planning import inspect_environment, render_environment

    report, sections = inspect_environment(), _sections(options)
    if options.json_output:
        contents = {**report.to_dict(), "sections": {part.name: part.to_dict() for part in sections}}
        print(json.dumps(contents, indent=2))
    else:
        print(f"{render_environment(report)}\n{render_sections(sections)}")
    well = report.complete and not any(section.broken for section in sections)
    return EXIT_DONE if well else EXIT_FAILURE


def _certify(options: DoctorOptions) -> int:
    from megatron_salamandra.certificates import Drill, certify, write_certificates
    from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE

    drill = None
    if options.profile is not None:
        drill = Drill(options.profile, options.nodes, options.account, options.qos)
    out = options.out.absolute()

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json_output else sys.stdout, flush=True)

    made = certify(options.certify, out, drill, say)
    path = out / "certificates.json"
    write_certificates(made, path)
    if options.json_output:
        print(path.read_text(encoding="utf-8"), end="")
    say(f"written: {path}")
    return EXIT_DONE if all(one.proof.passed for one in made) else EXIT_FAILURE


def _sections(options: DoctorOptions) -> list[Section]:
    from megatron_salamandra.cluster import pace
    from megatron_salamandra.doctor import Section, device_checks, site_checks, storage_checks
    from megatron_salamandra.node_check import check_node
    from megatron_salamandra.run_directory import RunDirectory

    sections = [Section("devices", tuple(device_checks()))]
    if options.node:
        sections.append(Section("node", check_node(options.storage or Path.cwd()).checks))
    if options.storage is not None:
        sections.append(Section("storage", tuple(storage_checks(options.storage))))
    if options.cluster:
        saves = None if options.storage is None else pace(RunDirectory(options.storage)).save_seconds
        sections.append(Section("cluster", tuple(site_checks(saves))))
    return sections
