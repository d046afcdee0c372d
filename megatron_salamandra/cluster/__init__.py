"""A run on a cluster: what is checked before the queue, how rounds follow on each other, and what a site is like.

Never imports torch: it runs on login nodes and in the place of the batch shell.
"""

from __future__ import annotations

from megatron_salamandra.cluster.control import Asked, ControlFiles
from megatron_salamandra.cluster.profile import (
    ClusterProfile,
    ProfileError,
    load_profile,
    profile_names,
    seconds_of,
)
from megatron_salamandra.cluster.rank_report import (
    RankReport,
    first_failure,
    leave_word,
    read_reports,
    report_end,
)
from megatron_salamandra.cluster.round_book import RoundBook
from megatron_salamandra.cluster.rounds import (
    Action,
    Allocation,
    Cause,
    Decision,
    Outcome,
    Patience,
    RankFailure,
    Round,
    decide,
)
from megatron_salamandra.cluster.slurm import NoJob, SlurmError, SlurmJob
from megatron_salamandra.cluster.supervise import Progress, Supervisor, Watch

__all__ = [
    "Action",
    "Allocation",
    "Asked",
    "Cause",
    "ClusterProfile",
    "ControlFiles",
    "Decision",
    "NoJob",
    "Outcome",
    "Patience",
    "ProfileError",
    "Progress",
    "RankFailure",
    "RankReport",
    "Round",
    "RoundBook",
    "SlurmError",
    "SlurmJob",
    "Supervisor",
    "Watch",
    "decide",
    "first_failure",
    "leave_word",
    "load_profile",
    "profile_names",
    "read_reports",
    "report_end",
    "seconds_of",
]
