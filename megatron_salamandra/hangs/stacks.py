"""The stacks of all ranks of a run that lives, on request: asked for, waited for, read, and grouped."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.hangs.records import END_OF_STACKS, RankRecord, RoundFiles, newest_round
from megatron_salamandra.run_directory import RunDirectory

_POLL_SECONDS = 0.5
_MORE_SECONDS = 5.0
_THREAD = re.compile(r"(?:Current thread|Thread) 0x[0-9a-f]+[^(]*\(most recent call first\):")
_WATCHDOG = "/megatron_salamandra/hangs/watchdog.py"
"""What a rank writes of itself includes the thread that writes, wherever the rank has the package."""


class NoStacks(UserError):
    """No rank of the run can be asked."""


@dataclass(frozen=True)
class RankStacks:
    """What one rank answered.

    Attributes:
        heading: when, and where it was, in its own words.
        threads: of each its frames, innermost first; the main thread comes first. The watchdog's own are left out.
    """

    record: RankRecord
    heading: str
    threads: tuple[tuple[str, ...], ...]

    @property
    def main(self) -> tuple[str, ...]:
        """Frames of the main thread, innermost first."""
        return self.threads[0] if self.threads else ()


@dataclass(frozen=True)
class Answers:
    """Stacks of the ranks that answered, and who did not.

    Attributes:
        silent: last records of the ranks that did not.
        unknown: ranks that never left a record.
    """

    stacks: tuple[RankStacks, ...]
    silent: tuple[RankRecord, ...]
    unknown: tuple[int, ...]
    moment: float
    """When the last look was, by the clock of the records."""

    @property
    def complete(self) -> bool:
        """Whether every rank answered."""
        return not (self.silent or self.unknown)

    def groups(self) -> list[list[RankStacks]]:
        """Ranks whose main threads have equal stacks, the largest group first."""
        found: dict[tuple[str, ...], list[RankStacks]] = defaultdict(list)
        for one in self.stacks:
            found[one.main].append(one)
        return sorted(found.values(), key=lambda group: (-len(group), group[0].record.rank))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        groups = [
            {
                "ranks": [one.record.rank for one in group],
                "hosts": sorted({one.record.host for one in group}),
                "main_thread": group[0].main,
            }
            for group in self.groups()
        ]
        ranks = [
            {
                "rank": one.record.rank,
                "host": one.record.host,
                "heading": one.heading,
                "threads": one.threads,
            }
            for one in self.stacks
        ]
        silent = [{**asdict(record), "place": str(record.place)} for record in self.silent]
        return {"groups": groups, "ranks": ranks, "silent": silent, "without_record": self.unknown}


def ask_for_stacks(
    directory: RunDirectory,
    seconds: float | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Answers:
    """Ask all ranks for their stacks and wait until each has answered, or the time is over.

    Args:
        seconds: to wait at most; three times as long as the ranks take to look for a request, and 5 s more, if None.
    Raises:
        NoStacks: no rank of the run has left a record.
        OSError: the request cannot be written.
    """
    files = newest_round(directory)
    records = files.read_all() if files is not None else []
    if files is None or not records:
        raise NoStacks(
            f"{directory.path}: no rank has said where it is\n  ranks do so from their first lines on, every "
            "10 s; is the run running? salamandra status tells"
        )
    world = max(records, key=lambda record: record.written).world  # older ones may be of an earlier start
    known = {record.rank: record for record in records if record.rank < world}
    before = {rank: _size(files, rank) for rank in range(world)}
    directory.stacks_wanted.parent.mkdir(exist_ok=True)
    directory.stacks_wanted.touch()
    if seconds is None:
        seconds = 3 * max(record.every_seconds for record in known.values()) + _MORE_SECONDS
    end = clock() + seconds
    answered: dict[int, str] = {}
    while True:
        for rank in set(range(world)) - set(answered):
            text = _answer(files, rank, before[rank])
            if text is not None:
                answered[rank] = text
        if len(answered) == world or clock() > end:
            break
        time.sleep(_POLL_SECONDS)
    known |= {record.rank: record for record in files.read_all() if record.rank < world}
    stacks = tuple(_parsed(known[rank], answered[rank]) for rank in sorted(answered) if rank in known)
    silent = tuple(known[rank] for rank in sorted(set(known) - set(answered)))
    newest = max(record.written for record in known.values())
    return Answers(stacks, silent, tuple(sorted(set(range(world)) - set(known))), newest)


def stacks_text(answers: Answers, *, all_threads: bool = False) -> str:
    """The answers for people: equal stacks once, innermost frame last as Python prints them.

    Args:
        all_threads: of every rank all threads, instead of the main threads of groups of ranks.
    """
    lines: list[str] = []
    for group in answers.groups():
        hosts = sorted({one.record.host for one in group})
        ranks = _ranges([one.record.rank for one in group])
        lines.append(f"rank{'s' * (len(group) > 1)} {ranks} on {', '.join(hosts)}: {_places(group)}")
        if all_threads:
            for one in group:
                lines += [f"  rank {one.record.rank}", *_thread_lines(one.threads)]
        else:
            lines += [f"    {frame}" for frame in reversed(group[0].main)] or ["    no Python frame"]
    for record in answers.silent:
        ago = max(0.0, answers.moment - record.written)
        lines.append(
            f"rank {record.rank} on {record.host} did not answer: last seen {record.place}, {ago:.0f} s before "
            "the newest sign of life"
        )
    if answers.unknown:
        alone = len(answers.unknown) == 1
        lines.append(
            f"rank{'' if alone else 's'} {_ranges(answers.unknown)} {'has' if alone else 'have'} never said a word"
        )
    return "\n".join(lines)


def _places(group: Sequence[RankStacks]) -> str:
    places = list(dict.fromkeys(str(one.record.place) for one in group))
    return places[0] if len(places) == 1 else f"{places[0]}, and {len(places) - 1} more places"


def _thread_lines(threads: Iterable[Sequence[str]]) -> list[str]:
    lines = []
    for number, frames in enumerate(threads):
        lines.append(f"    {'main thread' if number == 0 else 'another thread'}")
        lines += [f"      {frame}" for frame in reversed(frames)]
    return lines


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3 and 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _size(files: RoundFiles, rank: int) -> int:
    try:
        return files.stacks_of(rank).stat().st_size
    except OSError:
        return 0


def _answer(files: RoundFiles, rank: int, after: int) -> str | None:
    """What a rank wrote since its file had ``after`` bytes; None until all of it is there."""
    if _size(files, rank) <= after:  # a look costs less than opening it, and there may be a thousand of them
        return None
    with contextlib.suppress(OSError), files.stacks_of(rank).open("rb") as stream:
        stream.seek(after)
        text = stream.read().decode(errors="replace")
        complete, found, _ = text.rpartition(f"{END_OF_STACKS}\n")
        if found:
            return complete.rpartition(f"{END_OF_STACKS}\n")[2]  # the last, where somebody else asked as well
    return None


def _parsed(record: RankRecord, text: str) -> RankStacks:
    heading = next((line for line in text.splitlines() if line.strip()), "")
    threads: list[list[str]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
        elif threads and line.startswith("  "):
            threads[-1].append(line.strip())
    # Python writes the newest thread first, so that the main one is the last. That one stays, even if it waits there.
    *others, main = threads or [[]]
    kept = [frames for frames in reversed(others) if not any(_WATCHDOG in frame for frame in frames)]
    return RankStacks(record, heading, tuple(tuple(frames) for frames in (main, *kept) if frames))
