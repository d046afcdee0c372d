"""Is this node fit to train: checks of one node, and verdicts on many. Imports torch only in processes of its own."""

from __future__ import annotations

from megatron_salamandra.node_check.host_state import ClockServer, check_network
from megatron_salamandra.node_check.one_node import check_directory, check_node, summary
from megatron_salamandra.node_check.result import Check, NodeResult, State
from megatron_salamandra.node_check.storage import TOKEN, locks_problem, write_speed
from megatron_salamandra.node_check.verdict import Choice, Grade, Verdict, choose, judge
from megatron_salamandra.node_check.versions import check_packages

RESULT_LINE = "node-check-result "
"""Beginning of the line on which a node tells its result."""

__all__ = [
    "RESULT_LINE",
    "TOKEN",
    "Check",
    "Choice",
    "ClockServer",
    "Grade",
    "NodeResult",
    "State",
    "Verdict",
    "check_directory",
    "check_network",
    "check_node",
    "check_packages",
    "choose",
    "judge",
    "locks_problem",
    "summary",
    "write_speed",
]
