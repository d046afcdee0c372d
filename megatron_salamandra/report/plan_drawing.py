"""Drawings of a plan: memory of each rank, the pipeline's schedule, and memory against time of layouts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from megatron_salamandra.forecast import Pass, Search
from megatron_salamandra.planning import RankMemory

_GIB = 1 << 30
_LEFT, _WIDTH, _ROW = 90.0, 1000.0, 26.0
MEMORY_PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "temporary")
"""Parts of a rank's memory, in the order of their colours."""


def memory_bars(ranks: Sequence[RankMemory], gpu_memory_gib: float) -> Markup:
    """One stacked bar for each pipeline rank, and a line where the GPU is full."""
    most = max(gpu_memory_gib * _GIB, *(rank.total_bytes for rank in ranks))
    scale = (_WIDTH - _LEFT - 80) / most
    parts = []
    for row, rank in enumerate(ranks):
        x, y = _LEFT, row * _ROW + 4
        parts.append(
            f'<text x="{_LEFT - 8:.0f}" y="{y + 15:.1f}" class="end">rank {rank.pipeline_rank}</text>'
        )
        for number, name in enumerate(MEMORY_PARTS):
            size = getattr(rank, f"{name}_bytes")
            title = f"<title>{escape(f'{name}: {size / _GIB:.2f} GiB')}</title>"
            parts.append(
                f'<rect class="s{number}" x="{x:.1f}" y="{y:.1f}" width="{size * scale:.1f}" height="20">{title}</rect>'
            )
            x += size * scale
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 15:.1f}">{rank.total_bytes / _GIB:.1f} GiB</text>')
    height = len(ranks) * _ROW + 24
    full = _LEFT + gpu_memory_gib * _GIB * scale
    parts.append(f'<path class="line" d="M{full:.1f} 0V{height - 20:.1f}"/>')
    parts.append(f'<text x="{full:.1f}" y="{height - 5:.1f}" class="end">{gpu_memory_gib:g} GiB</text>')
    return _svg(height, "memory of each pipeline rank", parts)


def schedule_bars(passes: Sequence[Pass], ranks: int) -> Markup:
    """What each rank of the pipeline does when; what is empty is waiting."""
    last = max(one.end for one in passes)
    scale = (_WIDTH - _LEFT - 10) / last
    parts = []
    for rank in range(ranks):
        y = rank * _ROW + 4
        parts.append(f'<text x="{_LEFT - 8:.0f}" y="{y + 15:.1f}" class="end">rank {rank}</text>')
    for one in passes:
        x, width = _LEFT + one.start * scale, max((one.end - one.start) * scale - 0.6, 0.4)
        y = one.rank * _ROW + 4
        kind = "forward" if one.forward else "backward"
        milliseconds = (one.end - one.start) * 1e3
        said = f"{kind} of micro-batch {one.micro_batch + 1}, chunk {one.chunk + 1}: {milliseconds:.1f} ms"
        colour = f"s{0 if one.forward else 1}"
        parts.append(
            f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="20" '
            f'opacity="{1 - 0.08 * min(one.chunk, 7):.2f}"><title>{escape(said)}</title></rect>'
        )
    height = ranks * _ROW + 24
    parts.append(f'<text x="{_WIDTH - 10:.0f}" y="{height - 5:.1f}" class="end">{last * 1e3:,.0f} ms</text>')
    return _svg(height, "schedule of the pipeline", parts)


def frontier_points(found: Search, gpu_memory_gib: float) -> Markup:
    """Seconds of a step against memory of the fullest rank."""
    seconds = [one.step.total for one in found.frontier]
    low, high = min(seconds), max(seconds)
    height, bottom = 320.0, 290.0
    parts = [f'<path class="grid" d="M{_LEFT} {bottom}H{_WIDTH - 10}M{_LEFT} {bottom}V10"/>']
    points = []
    for number, one in enumerate(found.frontier, 1):
        x = _LEFT + one.verdict.needed_bytes / (gpu_memory_gib * _GIB) * (_WIDTH - _LEFT - 120)
        y = bottom - 20 - (one.step.total - low) / max(high - low, 1e-9) * 230
        points.append((x, y))
        said = (
            f"{one.candidate.describe()}: {one.step.total:.3f} s, {one.verdict.needed_bytes / _GIB:.1f} GiB"
        )
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(said)}</title></circle>'
        )
        parts.append(f'<text x="{x + 8:.1f}" y="{y - 6:.1f}">{number}</text>')
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts.append(f'<path class="line" d="M{path}"/>')
    parts.append(f'<text x="{_LEFT - 8:.0f}" y="{bottom - 16:.0f}" class="end">{low:.2f} s</text>')
    parts.append(f'<text x="{_LEFT - 8:.0f}" y="{bottom - 246:.0f}" class="end">{high:.2f} s</text>')
    parts.append(f'<text x="{_LEFT:.0f}" y="{height - 8:.0f}">0 GiB</text>')
    full = _LEFT + _WIDTH - _LEFT - 120
    parts.append(f'<text x="{full:.0f}" y="{height - 8:.0f}" class="end">{gpu_memory_gib:g} GiB</text>')
    return _svg(height, "memory and time of layouts", parts)


def _svg(height: float, name: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="chart wide" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(name)}">'
    return Markup(head + "".join(parts) + "</svg>")  # nosec B704 # texts are escaped, the rest are numbers
