"""Who holds up the others: a pure function of the records of all ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.hangs.progress import Part
from megatron_salamandra.hangs.records import RankRecord, RoundFiles

_SILENT_INTERVALS = 3
_SILENT_SECONDS = 1.0
_NAMED = 4
"""So many ranks or places are named one by one."""


@dataclass(frozen=True)
class Hang:
    """What the records of a round say.

    Attributes:
        late: records of the ranks that hold up the others; empty if all stand at the same place.
        text: one sentence for people.
    """

    late: tuple[RankRecord, ...]
    text: str

    @property
    def suspect(self) -> RankRecord | None:
        """A late rank whose host is best avoided; None where the hosts of others are as likely at fault."""
        hosts = {record.host for record in self.late}
        if len(hosts) != 1 or 2 * len(self.late) > self.late[0].world:
            return None
        return self.late[0]


def describe_hang(files: RoundFiles) -> Hang | None:
    """What the records of a round that hangs say; None if there are none."""
    records = files.read_all()
    return find_late(records, files.stacks) if records else None


def find_late(records: Sequence[RankRecord], stacks: Path) -> Hang:
    """Name the ranks that hold up the others, with their hosts and where they stand.

    First those that give no sign of life: a rank that was frozen, or whose host is gone, writes no record, while those
    that wait for it do. Else those that are behind: in an earlier step, in an earlier part of it, or, among ranks that
    do the same, at an earlier micro-batch or collective.

    Args:
        records: at least one.
        stacks: directory that the sentence names.
    """
    world = max(records, key=lambda record: record.written).world  # older ones may be of an earlier start
    records = [record for record in records if record.rank < world]
    newest = max(record.written for record in records)
    silent = [record for record in records if newest - record.written > _patience(record)]
    absent = sorted(set(range(world)) - {record.rank for record in records})
    if world == 1:
        return Hang(
            (), f"{_name(records[0])}: {records[0].place} for {records[0].seconds:.0f} s; stacks in {stacks}"
        )
    if silent or absent:
        late = silent
        told = [
            f"{_name(r)}: no sign of life for {newest - r.written:.0f} s, last {r.place}"
            for r in silent[:_NAMED]
        ]
        told += [f"rank {rank}: no sign of life at all" for rank in absent[:_NAMED]]
        if (unnamed := len(silent) + len(absent) - len(told)) > 0:
            told.append(f"{unnamed} more ranks give no sign of life")
    else:
        late = _behind(records)
        told = [f"{_name(r)}: {r.place} for {r.seconds:.0f} s" for r in late[:_NAMED]]
        if len(late) > _NAMED:
            told.append(f"{len(late) - _NAMED} more ranks stand there or before")
    ranks = {record.rank for record in late}
    others = [record for record in records if record.rank not in ranks]
    return Hang(tuple(late), "; ".join([*told, *_waiting(others, alone=not told)]) + f"; stacks in {stacks}")


def _patience(record: RankRecord) -> float:
    return _SILENT_INTERVALS * record.every_seconds + _SILENT_SECONDS


def _name(record: RankRecord) -> str:
    return f"rank {record.rank} on {record.host}"


def _behind(records: Sequence[RankRecord]) -> list[RankRecord]:
    """Ranks that are behind in step and phase; else, among ranks that do the same, by marks and collectives."""
    if late := _least(records, lambda r: (r.place.part is not Part.START, r.place.step, r.place.part.phase)):
        return late
    compute = records[0].place.part in (Part.FORWARD, Part.BACKWARD)
    if not compute and (late := _least(records, lambda r: r.place.marks)):
        return late
    groups: dict[str, list[RankRecord]] = defaultdict(list)
    for record in records:
        groups[record.peers].append(record)
    return [
        record
        for group in groups.values()
        for record in _least(group, lambda r: (r.place.marks if compute else 0, r.collectives or 0))
    ]


def _least(records: Sequence[RankRecord], key: Callable[[RankRecord], object]) -> list[RankRecord]:
    """Those with the least key; none if all are equal."""
    keys = {record.rank: key(record) for record in records}
    if len(set(keys.values())) < 2:
        return []
    least = min(keys.values())  # type: ignore[type-var]
    return [record for record in records if keys[record.rank] == least]


def _waiting(others: Iterable[RankRecord], *, alone: bool) -> list[str]:
    places = Counter(str(record.place) for record in others)
    told = []
    for place, count in places.most_common(_NAMED):
        if alone:
            told.append(f"all ranks stand {place}" if len(places) == 1 else f"{count} ranks stand {place}")
        else:
            told.append(f"{count} other rank{'s' * (count > 1)} wait{'s' * (count == 1)} {place}")
    if len(places) > _NAMED:
        told.append(f"others in {len(places) - _NAMED} more places")
    return told
