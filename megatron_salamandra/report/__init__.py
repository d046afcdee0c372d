"""What a run was, on one page: read from its directory through the rooms that keep its records. Never imports torch.

``salamandra report RUN`` writes it, and so does every end of a run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from megatron_salamandra.report.end_of_run import write_report_in_time

if TYPE_CHECKING:
    from megatron_salamandra.report.numbers import report_numbers
    from megatron_salamandra.report.reading import RunFacts, read_run
    from megatron_salamandra.report.writing import write_plan_page, write_report

__all__ = [
    "RunFacts",
    "read_run",
    "report_numbers",
    "write_plan_page",
    "write_report",
    "write_report_in_time",
]

_LATER = {
    "RunFacts": "reading",
    "read_run": "reading",
    "report_numbers": "numbers",
    "write_plan_page": "writing",
    "write_report": "writing",
}


def __getattr__(name: str) -> Any:
    # At the end of a run, whatever is wrong with this room's packages may be no concern of the run's.
    if name not in _LATER:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
