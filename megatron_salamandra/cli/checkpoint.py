"""``salamandra checkpoint``: all about checkpoints but making them. Only ``diff`` and ``reshard`` import torch."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from megatron_salamandra.cli._command import Subparsers, add_command
from megatron_salamandra.foundation.options import Count, Option, OptionError, Options

if TYPE_CHECKING:
    from megatron_salamandra.config import CheckpointSection


class RunOptions(Options):
    """Options of commands on a run."""

    run: Annotated[Path, Option("run directory, or its checkpoints/", metavar="RUN_DIR", positional=True)]


class ListOptions(RunOptions):
    """Options of ``salamandra checkpoint list``."""

    checksums: Annotated[bool, Option("read every file, instead of comparing names and sizes only")] = False


class MarkOptions(RunOptions):
    """Options of ``salamandra checkpoint mark``."""

    step: Annotated[int, Option("of the checkpoint", metavar="STEP", positional=True)]
    name: Annotated[str | None, Option("what it is called", flag="--as", metavar="NAME")] = None


class UnmarkOptions(RunOptions):
    """Options of ``salamandra checkpoint unmark``."""

    step: Annotated[int, Option("of the checkpoint", metavar="STEP", positional=True)]


class PruneOptions(RunOptions):
    """Options of ``salamandra checkpoint prune``."""

    keep_last: Annotated[
        Count | None, Option("newest checkpoints kept; checkpoint.keep_last of the run unless given")
    ] = None
    keep_every_steps: Annotated[
        Count | None,
        Option("multiples of this step are kept; checkpoint.keep_every_steps of the run unless given"),
    ] = None
    dry_run: Annotated[bool, Option("say what would be deleted, and delete nothing")] = False


class CheckpointOptions(Options):
    """Options of commands on one checkpoint."""

    checkpoint: Annotated[
        Path,
        Option("step-NNNNNNNN, or a run directory for the latest", metavar="CHECKPOINT", positional=True),
    ]


class DiffOptions(Options):
    """Options of ``salamandra checkpoint diff``."""

    first: Annotated[Path, Option("a checkpoint", metavar="A", positional=True)]
    second: Annotated[Path, Option("another", metavar="B", positional=True)]


class ReshardOptions(CheckpointOptions):
    """Options of ``salamandra checkpoint reshard``."""

    ranks: Annotated[Count, Option("how many ranks will load it; tensors go into two files for each")]
    out: Annotated[Path, Option("run directory that gets the new checkpoint", metavar="RUN_DIR")]


def register(subparsers: Subparsers) -> None:
    """Add the ``checkpoint`` group."""
    group = subparsers.add_parser("checkpoint", help="list, prove, keep, delete and compare checkpoints")
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_command(
        commands,
        "list",
        lambda: ListOptions,
        _list,
        text="complete checkpoints of a run, oldest first",
        description="Prints step, tokens, layout, size, age, mark and condition of each complete checkpoint of a run.",
    )
    add_command(
        commands,
        "inspect",
        lambda: CheckpointOptions,
        _inspect,
        text="state of one checkpoint: step, ledger, layout, condition (JSON)",
        description="Prints what a checkpoint says of itself, its size, age, mark, and whether it is intact: JSON.",
    )
    add_command(
        commands,
        "verify",
        lambda: CheckpointOptions,
        _verify,
        text="compare every file with the manifest's size and checksum",
        description="Reads every file of a checkpoint. Exit code 1 at the first that is not as it was written.",
    )
    add_command(
        commands,
        "mark",
        lambda: MarkOptions,
        _mark,
        text="keep a checkpoint for ever, under a name if you like",
        description="A marked checkpoint is deleted neither by the run nor by prune.",
    )
    add_command(
        commands,
        "unmark",
        lambda: UnmarkOptions,
        _unmark,
        text="take the mark of a checkpoint away",
        description="From then on the checkpoint is kept and deleted like others.",
    )
    add_command(
        commands,
        "prune",
        lambda: PruneOptions,
        _prune,
        text="delete checkpoints that the run's settings do not keep",
        description="Keeps the newest, multiples of keep_every_steps, and what is marked. May run beside the run.",
    )
    add_command(
        commands,
        "diff",
        lambda: DiffOptions,
        _diff,
        text="which tensors of two checkpoints differ, and by how much",
        description="Compares two checkpoints, whatever layouts they were saved in. Exit code 1 if they differ.",
    )
    add_command(
        commands,
        "reshard",
        lambda: ReshardOptions,
        _reshard,
        text="write a checkpoint anew for another number of ranks",
        description="Spreads tensors over as many files as the new ranks write; on the host, with bounded memory. "
        "Values stay as they are, and any layout can load the result.",
    )


def _list(options: ListOptions) -> int:
    from megatron_salamandra.run_directory import (
        MANIFEST,
        CheckpointError,
        complete_checkpoints,
        read_marks,
        read_state,
        step_of,
        verify_checkpoint,
    )
    from salamandra_data.text_table import text_table

    root = _checkpoints_of(options.run)
    marks = read_marks(root)
    rows = []
    for directory in complete_checkpoints(root):
        step = step_of(directory)
        mark = (marks[step] or "marked") if step in marks else ""
        age = _age(time.time() - (directory / MANIFEST).stat().st_mtime)
        try:
            size = verify_checkpoint(directory, checksums=options.checksums)
            state = read_state(directory)
        except CheckpointError as error:
            print(error, file=sys.stderr)
            rows.append([directory.name, "", "", "", age, mark, "damaged"])
            continue
        condition = "intact" if options.checksums else "complete"
        cells = [f"{state.consumed_tokens:,}", state.layout, f"{size / 1e6:,.1f}", age, mark, condition]
        rows.append([directory.name, *cells])
    heading = ["checkpoint", "tokens", "layout", "MB", "age", "mark", "condition"]
    print(text_table(heading, rows) if rows else f"{root}: no checkpoints")
    return 0


def _checkpoints_of(run: Path) -> Path:
    """Where the checkpoints of a run are, by its directory or that one.

    Raises:
        OptionError: there is no such directory.
    """
    from megatron_salamandra.run_directory import RunDirectory

    if not run.is_dir():
        raise OptionError(f"{run}: {_what_is_there(run)}\n  name a run directory, such as runs/my-run")
    checkpoints = RunDirectory(run).checkpoints
    return checkpoints if checkpoints.is_dir() else run


def _what_is_there(path: Path) -> str:
    return "is a file, not a directory" if path.exists() else "no such directory"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _inspect(options: CheckpointOptions) -> int:
    from megatron_salamandra.run_directory import (
        MANIFEST,
        CheckpointError,
        read_manifest,
        read_marks,
        read_state,
        resolve_checkpoint,
        step_of,
        verify_checkpoint,
    )

    directory = resolve_checkpoint(options.checkpoint)
    marks, step = read_marks(directory.parent), step_of(directory)
    damage: str | None = None
    try:
        verify_checkpoint(directory)
    except CheckpointError as error:
        damage = str(error)
    written = datetime.fromtimestamp((directory / MANIFEST).stat().st_mtime).astimezone()
    manifest = read_manifest(directory)
    about = {
        "path": str(directory),
        "bytes": manifest.bytes,
        "files": len(manifest.files),
        "written": written.isoformat(timespec="seconds"),
        "marked": step in marks,
        "mark": marks.get(step),
        "intact": damage is None,
        "damage": damage,
    }
    print(json.dumps({**read_state(directory).values, "checkpoint": about}, indent=1))
    return 0


def _verify(options: CheckpointOptions) -> int:
    from megatron_salamandra.run_directory import resolve_checkpoint, verify_checkpoint

    directory = resolve_checkpoint(options.checkpoint)
    size = verify_checkpoint(directory)
    print(f"{directory}: complete, {size / 1e6:,.1f} MB, all checksums match")
    return 0


def _mark(options: MarkOptions) -> int:
    from megatron_salamandra.run_directory import mark_checkpoint

    mark_checkpoint(_checkpoints_of(options.run), options.step, options.name)
    print(f"step {options.step} is kept{f' as {options.name}' if options.name else ''}")
    return 0


def _unmark(options: UnmarkOptions) -> int:
    from megatron_salamandra.run_directory import unmark_checkpoint

    unmark_checkpoint(_checkpoints_of(options.run), options.step)
    print(f"step {options.step} is kept like others")
    return 0


def _prune(options: PruneOptions) -> int:
    from megatron_salamandra.checkpoint import prune
    from megatron_salamandra.run_directory import CheckpointError, read_manifest, step_of

    root = _checkpoints_of(options.run)
    policy = _policy(options, root)
    sizes = {}
    for directory in prune(root, policy, dry_run=True):
        try:
            sizes[directory] = read_manifest(directory).bytes
        except CheckpointError:
            sizes[directory] = 0
    deleted = list(sizes) if options.dry_run else prune(root, policy)
    for directory in deleted:
        size = f"{sizes.get(directory, 0) / 1e6:,.1f} MB"
        print(f"step {step_of(directory)}: {'would be deleted' if options.dry_run else 'deleted'}, {size}")
    if not deleted:
        print(f"{root}: nothing to delete")
    return 0


def _policy(options: PruneOptions, root: Path) -> CheckpointSection:
    """What to keep: as the command says, else as the run's configuration does."""
    import yaml

    from megatron_salamandra.config import CheckpointSection
    from megatron_salamandra.run_directory import RunDirectory

    path = RunDirectory(root.parent).config
    given = options.model_dump(include={"keep_last", "keep_every_steps"}, exclude_none=True)
    try:
        of_run = yaml.safe_load(path.read_text(encoding="utf-8"))["checkpoint"]
        kept = {key: of_run[key] for key in ("keep_last", "keep_every_steps")}
        return CheckpointSection.model_validate(kept | given)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        if "keep_last" in given:
            return CheckpointSection.model_validate(given)
        raise OptionError(
            f"{path} does not say what to keep: {error!r}\n  say it with --keep-last"
        ) from error


def _diff(options: DiffOptions) -> int:
    from megatron_salamandra.checkpoint import compare_checkpoints
    from megatron_salamandra.run_directory import resolve_checkpoint, verify_checkpoint
    from salamandra_data.text_table import text_table

    first, second = resolve_checkpoint(options.first), resolve_checkpoint(options.second)
    for directory in (first, second):
        verify_checkpoint(directory)
    found = compare_checkpoints(first, second)
    for directory, names in ((first, found.only_in_first), (second, found.only_in_second)):
        for name in names:
            print(f"only in {directory}: {name}")
    for name, kinds in found.other_kind:
        print(f"{name}: {kinds}")
    if found.differing:
        rows = [
            [
                item.name,
                f"{item.differing:,} of {item.elements:,}",
                f"{item.largest:.3g}",
                f"{item.relative:.3g}",
            ]
            for item in found.differing
        ]
        print(text_table(["tensor", "elements that differ", "largest difference", "relative"], rows))
    print(f"{found.equal} tensors are equal, {len(found.differing)} differ")
    return 0 if found.same else 1


def _reshard(options: ReshardOptions) -> int:
    from megatron_salamandra.checkpoint import reshard_checkpoint
    from megatron_salamandra.run_directory import resolve_checkpoint

    written = reshard_checkpoint(resolve_checkpoint(options.checkpoint), options.out, options.ranks)
    print(f"{written}: written for {options.ranks} ranks")
    return 0
