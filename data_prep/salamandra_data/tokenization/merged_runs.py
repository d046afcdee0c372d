"""Making few runs of many, so that every key range is a few large pieces.

A run is as large as a worker's memory allows, and a key range of the second pass as large again; out of ``r`` runs it
is read in ``r`` pieces. So the number of runs is bounded, whatever the size of the input: for that a part of the runs
is merged, each text copied once as long as there are no more than ``FAN_IN`` runs to each that may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from salamandra_data.tokenization.document_hash import even_bounds
from salamandra_data.tokenization.range_reader import RangeReader
from salamandra_data.tokenization.run_file import Run, RunFile

FAN_IN = 512  # files open at once; a process may usually have 1,024
_PART_BYTES = 32 << 20


def merge_consecutive(
    runs: list[Run], most: int, next_path: Callable[[], Path], go_on: Callable[[], None]
) -> None:
    """Replace as few of ``runs`` as will do by merged ones, until there are ``most``; the order stays.

    Args:
        runs: changed in place; the files of merged runs are removed.
        most: 1 or more.
        next_path: of a new run.
        go_on: called now and then, to raise if the work is to end.
    Raises:
        DataError: the disk is full or refuses, or a run is damaged.
    """
    place = 0
    while (excess := len(runs) - most) > 0:
        count = (excess - 1) % (FAN_IN - 1) + 2  # then all that come later are of FAN_IN runs
        if place + count > len(runs):
            place = 0
        runs[place : place + count] = [_merged(runs[place : place + count], next_path(), go_on)]
        place += 1


def _merged(runs: Sequence[Run], path: Path, go_on: Callable[[], None]) -> Run:
    with RunFile(path, sum(run.documents for run in runs)) as file:
        for group in sorted({group for run in runs for group in run.groups}):
            size = sum(run.groups[group].record_bytes for run in runs if group in run.groups)
            bounds = even_bounds(-(-size // _PART_BYTES))
            with RangeReader(runs, group, bounds) as reader:
                for part in range(len(bounds) - 1):
                    go_on()
                    file.add(group, *reader.records(part))
    merged = file.run()
    for run in runs:
        run.path.unlink(missing_ok=True)
    return merged
