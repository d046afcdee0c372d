"""Megatron-Core's pipeline layout string, read without importing Megatron-Core or torch.

``"Ettt|(tt|)*2,L"`` means four stages: embedding and 3 layers; 2 layers; 2 layers; head and loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REPEATED_GROUP = re.compile(r"\(([^)]+)\)\*(\d+)")
_REPEATED_ITEM = re.compile(r"(.)\*(\d+)")
# A typing slip such as t*3000000000 must end in a message, not in exhausted memory.
_LARGEST_EXPANSION = 100_000


@dataclass(frozen=True)
class PipelineStage:
    """What one stage (one model chunk of one pipeline rank) holds."""

    embedding: bool
    layers: int
    head: bool


def parse_pipeline_layout(text: str) -> list[PipelineStage]:
    """Stages in the order a token passes them; stage i is on pipeline rank i mod pipeline size.

    Raises:
        ValueError: a letter, order or repetition that Megatron-Core would refuse; says which.
    """
    stages = []
    letters = _expand(text)
    for number, stage in enumerate(letters.split("|")):
        unknown = sorted(set(stage) - set("EtL"))
        if unknown:
            raise ValueError(
                f"has {' '.join(map(repr, unknown))} in stage {number}; only E, t, L, |, *n and (...)*n are known"
            )
        stages.append(PipelineStage("E" in stage, stage.count("t"), "L" in stage))
    flat = letters.replace("|", "")
    if flat.count("E") != 1 or not flat.startswith("E"):
        raise ValueError("must start with its only E (the embedding)")
    if flat.count("L") != 1 or not flat.endswith("L"):
        raise ValueError("must end with its only L (head and loss)")
    return stages


def _expand(text: str) -> str:
    """Unroll repetitions the way Megatron-Core does: groups first, then single items, commas cosmetic."""
    letters = text.replace(",", "")
    for pattern in (_REPEATED_GROUP, _REPEATED_ITEM):
        length = len(letters) + sum(len(found[1]) * int(found[2]) for found in pattern.finditer(letters))
        if length > _LARGEST_EXPANSION:
            raise ValueError(f"unrolls to more than {_LARGEST_EXPANSION:,} items")
        letters = pattern.sub(lambda found: found[1] * int(found[2]), letters)
    return letters
