"""Checking shards and blend plans down to the last byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from salamandra_data.blend_plan.plan import BlendPlan
from salamandra_data.errors import DataError
from salamandra_data.shards import VerificationReport, find_shards, lost_shards, verify_shards
from salamandra_data.storage import Location, as_location


def verify(paths: Sequence[Location], *, renew: bool = False) -> VerificationReport:
    """Check every shard in ``paths`` (prefixes and directories, local or URLs, ``.yaml`` blend plans) completely.

    All problems are gathered; one damaged shard does not hide another.

    Args:
        renew: whether the manifests of intact local shards that have no checksum of themselves get one.
    Raises:
        DataError: a path does not exist or holds no shard.
    """
    report = VerificationReport()
    prefixes: dict[Location, None] = {}
    for path in paths:
        if isinstance(path, Path) and path.suffix in (".yaml", ".yml"):
            prefixes |= dict.fromkeys(_plan_shards(path, report))
        else:
            found = find_shards([path])
            prefixes |= dict.fromkeys(found)
            if as_location(path).is_dir():
                report.problems += lost_shards(found)
    verify_shards(prefixes, report, renew=renew)
    return report


def _plan_shards(path: Path, report: VerificationReport) -> list[Location]:
    try:
        plan = BlendPlan.load(path)
    except DataError as error:
        report.problems.append(str(error))
        try:  # the plan's own list says which shards to look at, whatever is wrong with one of them
            plan = BlendPlan.parse(path)
        except DataError:
            return []
    return [shard.path for source in plan.sources for shard in (*source.shards, *source.validation_shards)]
