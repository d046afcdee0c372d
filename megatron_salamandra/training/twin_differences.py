"""Which of the ranks that should hold the same weights does not: a pure function of what all ranks have summed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TwinReport:
    """What one rank says of its weights.

    Attributes:
        sums: a sum over the bits of each weight, by (part, name). Ranks with the same key hold the same numbers.
    """

    rank: int
    host: str
    sums: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Difference:
    """A weight that is not the same on all of its twins.

    Attributes:
        part: which of the model's parts it is in, in words; empty for one that all parts have.
        odd: ranks that differ from the majority; all twins where there is none.
        source: a rank of the majority; None where there is none.
    """

    part: str
    name: str
    odd: tuple[int, ...]
    source: int | None


def find_differences(reports: Sequence[TwinReport]) -> list[Difference]:
    """Every weight that differs between twins, in the order of its key.

    The majority is more than half of a weight's twins. Two twins have none.
    """
    twins: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for report in reports:
        for key, value in report.sums.items():
            twins[key][report.rank] = value
    found = []
    for (part, name), sums in sorted(twins.items()):
        ((most, count), *others) = Counter(sums.values()).most_common()
        if not others:
            continue
        if 2 * count > len(sums):
            odd = tuple(sorted(rank for rank, value in sums.items() if value != most))
            source = min(rank for rank, value in sums.items() if value == most)
            found.append(Difference(part, name, odd, source))
        else:
            found.append(Difference(part, name, tuple(sorted(sums)), None))
    return found


def in_words(differences: Sequence[Difference], reports: Sequence[TwinReport], most: int = 3) -> str:
    """One sentence that names weights, ranks and hosts.

    Args:
        most: so many weights are named; of the others their number is told.
    """
    hosts = {report.rank: report.host for report in reports}
    told = []
    for one in differences[:most]:
        ranks = ", ".join(f"rank {rank} on {hosts[rank]}" for rank in one.odd[:4])
        more = f" and {len(one.odd) - 4} more ranks" if len(one.odd) > 4 else ""
        where = f" ({one.part})" if one.part else ""
        kind = "differs from its twins on" if one.source is not None else "differs between"
        told.append(f"{one.name}{where} {kind} {ranks}{more}")
    if len(differences) > most:
        told.append(f"{len(differences) - most} more weights")
    return "; ".join(told)
