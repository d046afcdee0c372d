"""``python -m megatron_salamandra.report RUN``: the report at the end of a job, which may not fail it."""

from __future__ import annotations

import sys
from pathlib import Path

from megatron_salamandra.report.end_of_run import write_report_in_time

if __name__ == "__main__":
    write_report_in_time(Path(sys.argv[1]))
