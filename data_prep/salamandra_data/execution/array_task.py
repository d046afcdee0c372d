"""One task of a job array: ``python -P -m salamandra_data.execution.array_task FILE [PACKAGE ...]``.

FILE says what is to be done (:mod:`salamandra_data.execution.task_file`), the environment which task this is. The
packages are those, besides ours, whose classes FILE may name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.execution.task_file import ArrayTasks


def main(argv: Sequence[str]) -> int:
    """Do the task; its exit code."""
    from datatrove.executor.local import LocalPipelineExecutor

    from salamandra_data.execution.stage_step import StageStep

    file, *packages = argv
    try:
        array = ArrayTasks.load(Path(file), packages)
    except DataError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    place = int(os.environ["SLURM_ARRAY_TASK_ID"]) + array.array_size * int(os.environ.get("RUN_OFFSET", "0"))
    if place >= len(array.tasks):  # the last array has as many as the others
        return 0
    step = StageStep(array.stage, array.record, array.before)
    executor = LocalPipelineExecutor([step], tasks=array.stage.tasks, logging_dir=str(array.record.directory))
    executor._run_for_rank(array.tasks[place])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
