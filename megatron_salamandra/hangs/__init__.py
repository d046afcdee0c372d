"""Hangs: what each rank is in and since when, who holds up the others, and the end of a rank that stays too long.

Never imports torch: the supervisor of a job reads the same records.
"""

from __future__ import annotations

from megatron_salamandra.hangs.late_ranks import Hang, describe_hang, find_late
from megatron_salamandra.hangs.progress import PROGRESS, Limits, Part, Place, RankProgress
from megatron_salamandra.hangs.records import RankRecord, RoundFiles, round_directory
from megatron_salamandra.hangs.stacks import Answers, NoStacks, ask_for_stacks, stacks_text
from megatron_salamandra.hangs.watchdog import Watchdog

__all__ = [
    "PROGRESS",
    "Answers",
    "Hang",
    "Limits",
    "NoStacks",
    "Part",
    "Place",
    "RankProgress",
    "RankRecord",
    "RoundFiles",
    "Watchdog",
    "ask_for_stacks",
    "describe_hang",
    "find_late",
    "round_directory",
    "stacks_text",
]
