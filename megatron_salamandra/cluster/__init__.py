"""A run on a cluster: what is checked before the queue, how rounds follow on each other, and what a site is like.

Never imports torch: it runs on login nodes and in the place of the batch shell.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from megatron_salamandra.cluster.control import Asked, ControlFiles, JobNote
from megatron_salamandra.cluster.history import History, Incident, Session, run_history, time_of
from megatron_salamandra.cluster.rank_report import (
    RankReport,
    first_failure,
    leave_word,
    read_reports,
    read_word,
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

if TYPE_CHECKING:
    from megatron_salamandra.cluster.fit_nodes import Fit, NodeCheck, fit_nodes
    from megatron_salamandra.cluster.hung_ranks import HungElsewhere, limits_of, tell_hang, watch_rank
    from megatron_salamandra.cluster.launch_options import LaunchOptions
    from megatron_salamandra.cluster.objection import Refused, refuse
    from megatron_salamandra.cluster.profile import (
        ClusterProfile,
        ProfileError,
        load_profile,
        profile_names,
        seconds_of,
    )
    from megatron_salamandra.cluster.queue_checks import QueueRequest, check_queue
    from megatron_salamandra.cluster.round_watch import RoundWatch, Watch
    from megatron_salamandra.cluster.run_state import Progress, pace
    from megatron_salamandra.cluster.slurm import NoJob, SlurmJob
    from megatron_salamandra.cluster.slurm_command import SlurmError
    from megatron_salamandra.cluster.status import (
        NoRun,
        Save,
        Status,
        ask_run,
        check_runs,
        run_status,
        status_text,
    )
    from megatron_salamandra.cluster.submission import Launch, launch
    from megatron_salamandra.cluster.supervise import Supervisor

__all__ = [
    "Action",
    "Allocation",
    "Asked",
    "Cause",
    "ClusterProfile",
    "ControlFiles",
    "Decision",
    "Fit",
    "History",
    "HungElsewhere",
    "Incident",
    "JobNote",
    "Launch",
    "LaunchOptions",
    "NoJob",
    "NoRun",
    "NodeCheck",
    "Outcome",
    "Patience",
    "ProfileError",
    "Progress",
    "QueueRequest",
    "RankFailure",
    "RankReport",
    "Refused",
    "Round",
    "RoundBook",
    "RoundWatch",
    "Save",
    "Session",
    "SlurmError",
    "SlurmJob",
    "Status",
    "Supervisor",
    "Watch",
    "ask_run",
    "check_queue",
    "check_runs",
    "decide",
    "first_failure",
    "fit_nodes",
    "launch",
    "leave_word",
    "limits_of",
    "load_profile",
    "pace",
    "profile_names",
    "read_reports",
    "read_word",
    "refuse",
    "report_end",
    "run_history",
    "run_status",
    "seconds_of",
    "status_text",
    "tell_hang",
    "time_of",
    "watch_rank",
]

_LATER = {
    "HungElsewhere": "hung_ranks",
    "limits_of": "hung_ranks",
    "tell_hang": "hung_ranks",
    "watch_rank": "hung_ranks",
    "RoundWatch": "round_watch",
    "Watch": "round_watch",
    "Fit": "fit_nodes",
    "NodeCheck": "fit_nodes",
    "fit_nodes": "fit_nodes",
    "ClusterProfile": "profile",
    "ProfileError": "profile",
    "load_profile": "profile",
    "profile_names": "profile",
    "pace": "run_state",
    "seconds_of": "profile",
    "NoJob": "slurm",
    "SlurmError": "slurm_command",
    "SlurmJob": "slurm",
    "Progress": "run_state",
    "Supervisor": "supervise",
    "NoRun": "status",
    "Save": "status",
    "Status": "status",
    "ask_run": "status",
    "check_runs": "status",
    "run_status": "status",
    "status_text": "status",
    "Launch": "submission",
    "LaunchOptions": "launch_options",
    "QueueRequest": "queue_checks",
    "check_queue": "queue_checks",
    "Refused": "objection",
    "refuse": "objection",
    "launch": "submission",
}


def __getattr__(name: str) -> Any:
    # A rank reports its end through this room, and must not wait for what only a login node needs.
    if name not in _LATER:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
