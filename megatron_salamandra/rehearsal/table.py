"""A rehearsal as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from megatron_salamandra.rehearsal.results import Category, RankRehearsal, Rehearsal

_GIB = 2**30


def render_rehearsal(rehearsal: Rehearsal) -> str:
    """Memory, communication and saves of every rank that was rehearsed."""
    return "\n".join(
        [
            f"{rehearsal.model}, {rehearsal.layout}",
            _what_was_run(rehearsal),
            "",
            "peak of a step, GiB of tensors",
            *_table(_memory_rows(rehearsal)),
            "",
            "what a rank tells others in a step",
            *_table(_call_rows(rehearsal)),
            "",
            "a save",
            *_table(_save_rows(rehearsal)),
        ]
    )


def _what_was_run(rehearsal: Rehearsal) -> str:
    done, all_of_them = rehearsal.micro_batches_run, rehearsal.micro_batches
    if done == all_of_them:
        return f"{len(rehearsal.ranks)} ranks rehearsed, all {done} micro-batches of a step"
    return (
        f"{len(rehearsal.ranks)} ranks rehearsed, {done} of {all_of_them} micro-batches of a step; "
        "the others repeat the last of these (--exact runs all)"
    )


def _memory_rows(rehearsal: Rehearsal) -> Iterator[Sequence[str]]:
    yield "rank", "stage", "like it", "parameters", *(c.value for c in Category), "peak", "where"
    for rank in rehearsal.ranks:
        peak = rank.peak
        sizes = [getattr(peak, f"{category.value}_bytes") for category in Category]
        where = " ".join(word for word in (peak.phase, peak.detail, peak.module) if word)
        yield (
            *_named(rank),
            str(rank.stands_for),
            f"{rank.parameters:,}",
            *(f"{size / _GIB:.2f}" for size in sizes),
            f"{peak.total_bytes / _GIB:.2f}",
            where,
        )


def _call_rows(rehearsal: Rehearsal) -> Iterator[Sequence[str]]:
    yield "ranks", "stage", "what", "group", "ranks of it", "dtype", "count", "GiB"
    said: dict[tuple[tuple[str, ...], ...], list[int]] = {}
    for rank in rehearsal.ranks:
        said.setdefault(_calls(rank, rehearsal), []).append(rank.rank)
    for rows, ranks in said.items():
        for stage, *rest in rows:
            yield ", ".join(map(str, ranks)), stage, *rest


def _calls(rank: RankRehearsal, rehearsal: Rehearsal) -> tuple[tuple[str, ...], ...]:
    stage = str(rank.pipeline_rank)
    stage_of = rehearsal.world_size // rehearsal.stages
    collectives = [
        (stage, use.name, use.group, str(use.ranks), use.dtype, f"{use.count:,}", f"{use.bytes / _GIB:.3f}")
        for use in rank.collectives
    ]
    messages = [
        (
            *(stage, use.name, f"stage {use.peer // stage_of}", "2", use.dtype),
            *(f"{use.count:,}", f"{use.bytes / _GIB:.3f}"),
        )
        for use in rank.messages
    ]
    return (*collectives, *messages)


def _save_rows(rehearsal: Rehearsal) -> Iterator[Sequence[str]]:
    yield "rank", "stage", "GiB of host memory", "bytes per parameter"
    for rank in rehearsal.ranks:
        yield *_named(rank), f"{rank.save_bytes / _GIB:.3f}", f"{rank.save_bytes_per_parameter:.3f}"


def _named(rank: RankRehearsal) -> tuple[str, str]:
    return str(rank.rank), str(rank.pipeline_rank)


def _table(rows: Iterator[Sequence[str]]) -> list[str]:
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(_aligned(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
