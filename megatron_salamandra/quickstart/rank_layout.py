"""How many ranks the quick start trains on, and how it splits the model over them."""

from __future__ import annotations

from megatron_salamandra.quickstart.errors import QuickstartError

CPU_RANKS = 4


def choose_ranks(requested: int | None, gpus: int) -> int:
    """The number of ranks: as asked, else 4 without GPUs, else the largest of 4, 2, 1 that the GPUs allow.

    Raises:
        QuickstartError: more ranks than GPUs, or a number that the layouts do not cover.
    """
    if requested is None:
        return CPU_RANKS if gpus == 0 else max(ranks for ranks in (1, 2, 4) if ranks <= gpus)
    if requested not in (1, 2) and (requested < 1 or requested % 4):
        raise QuickstartError(f"--ranks {requested}: cannot be laid out\n  allowed: 1, 2 and multiples of 4")
    if gpus and requested > gpus:
        raise QuickstartError(
            f"--ranks {requested}: this machine has {gpus} GPUs, one per rank\n  take fewer ranks"
        )
    return requested


def layout_overrides(ranks: int) -> list[str]:
    """Configuration overrides for ``ranks``: tensor 2 x pipeline 2 from 4 on, what exceeds it is data parallel."""
    tensor = 2 if ranks >= 2 else 1
    pipeline = 2 if ranks >= 4 else 1
    sequence = "true" if tensor > 1 else "false"
    return [f"parallel.tensor={tensor}", f"parallel.pipeline={pipeline}", f"parallel.sequence={sequence}"]
