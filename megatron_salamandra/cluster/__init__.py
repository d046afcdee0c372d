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

__all__ = [
    "Action",
    "Allocation",
    "Asked",
    "Cause",
    "ClusterProfile",
    "ControlFiles",
    "Decision",
    "Outcome",
    "Patience",
    "ProfileError",
    "RankFailure",
    "Round",
    "decide",
    "load_profile",
    "profile_names",
    "seconds_of",
]
