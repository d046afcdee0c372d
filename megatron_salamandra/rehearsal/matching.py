"""Whether the ranks of a job say the same to each other: collectives by group, messages by pair, and who would wait.

A rank that was not rehearsed is taken to do what the last rehearsed rank of its pipeline stage does, each in the group
of the same name that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from megatron_salamandra.config import Layout
from megatron_salamandra.rehearsal.distinct import seat_of, stage_ranks
from megatron_salamandra.rehearsal.results import Call

Said = Mapping[int, Sequence[Call]]
"""Calls of the ranks that were rehearsed, in order."""


def find_mismatches(said: Said, layout: Layout) -> list[str]:
    """What does not fit together, each as a message that names the ranks and the places; empty if all does."""
    return [*_collectives(said, layout), *_messages(said, layout)] or [*_waiting_for_each_other(said, layout)]


def stand_in(rank: int, said: Said, layout: Layout) -> int | None:
    """The rehearsed rank that does what ``rank`` does; None if none of its stage was rehearsed."""
    if rank in said:
        return rank
    size = stage_ranks(layout)
    return max((known for known in said if known // size == rank // size), default=None)


def _collectives(said: Said, layout: Layout) -> Iterator[str]:
    compared = set()
    for rank in said:
        groups = {call.group.name: call.group for call in said[rank] if call.peer is None}
        for name, group in groups.items():
            for member in group.ranks:
                other = stand_in(member, said, layout)
                pair = (name, *sorted((rank, other))) if other is not None else None
                if pair is None or other == rank or pair in compared:
                    continue
                compared.add(pair)
                assert other is not None
                mine, theirs = (_of_group(said[one], name) for one in (rank, other))
                yield from _first_difference(
                    mine, theirs, rank, other, f"the group {name} ({len(group.ranks)} ranks)"
                )


def _of_group(calls: Sequence[Call], name: str) -> list[Call]:
    return [call for call in calls if call.peer is None and call.group.name == name]


def _messages(said: Said, layout: Layout) -> Iterator[str]:
    for rank in said:
        stage = seat_of(rank, layout).pipeline_rank
        for peer in sorted({call.peer for call in said[rank] if call.peer is not None}):
            other = stand_in(peer, said, layout)
            if other is None:
                continue
            sent = [call for call in said[rank] if call.peer == peer and call.name == "send"]
            taken = [
                call
                for call in said[other]
                if call.peer is not None
                and call.name == "receive"
                and seat_of(call.peer, layout).pipeline_rank == stage
            ]
            yield from _first_difference(sent, taken, rank, other, f"messages from {rank} to {peer}")


def _first_difference(
    mine: Sequence[Call], theirs: Sequence[Call], rank: int, other: int, what: str
) -> Iterator[str]:
    for number, (one, two) in enumerate(zip_longest(mine, theirs), 1):
        if one is None or two is None or not _fit(one, two):
            yield (
                f"rank {rank} and rank {other} do not agree on {what}, call {number} of a step\n"
                f"  rank {rank}: {_told(one)}\n"
                f"  rank {other}: {_told(two)}"
            )
            return


def _fit(one: Call, two: Call) -> bool:
    names = {one.name, two.name}
    return (len(names) == 1 or names == {"send", "receive"}) and (one.dtype, one.bytes) == (
        two.dtype,
        two.bytes,
    )


def _told(call: Call | None) -> str:
    if call is None:
        return "never comes"
    size = f" of {call.bytes:,} bytes {call.dtype}" if call.bytes else ""
    return f"{call.name}{size} in {call.phase}, at {call.site}"


def _waiting_for_each_other(said: Said, layout: Layout) -> Iterator[str]:
    """Walk all ranks through their collectives; one that waits goes on when all of its group have come."""
    next_call = dict.fromkeys(said, 0)
    come: dict[tuple[int, str], int] = {}
    calls = {rank: [call for call in said[rank] if call.peer is None] for rank in said}
    waits_since: dict[int, int] = {}
    moved = True
    while moved:
        moved = False
        for rank, own in calls.items():
            while next_call[rank] < len(own):
                call = own[next_call[rank]]
                if waits_since.get(rank) != next_call[rank]:
                    come[rank, call.group.name] = come.get((rank, call.group.name), 0) + 1
                    waits_since[rank] = next_call[rank]
                    moved = True
                needed = come[rank, call.group.name]
                others = {stand_in(member, said, layout) for member in call.group.ranks} - {None}
                if call.waits and any(
                    come.get((one, call.group.name), 0) < needed for one in others if one is not None
                ):
                    break
                next_call[rank] += 1
                moved = True
    stuck = [rank for rank in said if next_call[rank] < len(calls[rank])]
    if stuck:
        told = "\n".join(f"  rank {rank}: {_told(calls[rank][next_call[rank]])}" for rank in stuck)
        yield f"ranks {', '.join(map(str, stuck))} wait for each other and would hang\n{told}"
