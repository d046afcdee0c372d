"""Giving stages to an executor, and finding out what became of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salamandra_data.errors import DataError
from salamandra_data.execution.progress_line import ProgressLine
from salamandra_data.execution.settings import (
    ExecutorSettings,
    LocalSettings,
    RaySettings,
    SlurmSettings,
)
from salamandra_data.execution.stage import Stage
from salamandra_data.execution.worker_pool import Counters, WorkerPool

if TYPE_CHECKING:
    from salamandra_data.execution.stage_step import StageStep

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


@dataclass(frozen=True)
class Outcome:
    """Whether the stages are done now, or which SLURM jobs will do them, by stage."""

    done: bool
    jobs: dict[str, str]


def run_stages(stages: Sequence[Stage], settings: ExecutorSettings, work: Path) -> Outcome:
    """Run ``stages`` one after the other; tasks that ``work`` knows to be complete are passed over.

    Local and Ray runs are waited for. Under SLURM all stages are submitted at once, each to start when the one before
    it ended well, and the call returns.

    Args:
        stages: in their order; names differ.
        settings: which executor, and how.
        work: directory on a file system that all machines share, made for this very run: it holds, by stage, which
            tasks are complete, logs, and the words of failed tasks. The same stages must come with it each time.
    Raises:
        DataError: a task failed (its words are given), or the executor cannot be used here.
    """
    settings.check()
    for stage in stages:
        if not _NAME.fullmatch(stage.name) or stage.tasks < 1:
            raise ValueError(f"stage {stage.name!r} with {stage.tasks} tasks")
    work = work.absolute()
    if isinstance(settings, SlurmSettings):
        return _submit(stages, settings, work)
    if isinstance(settings, RaySettings):
        with _RayCluster(settings):
            _run_in_turn(stages, settings, work)
    else:
        _run_in_turn(stages, settings, work)
    return Outcome(done=True, jobs={})


def _run_in_turn(stages: Sequence[Stage], settings: LocalSettings | RaySettings, work: Path) -> None:
    for stage in stages:
        executor = _executor(stage, settings, work)
        failure: Exception | None = None
        try:
            if isinstance(settings, LocalSettings):
                _run_here(stage, executor, settings.workers)
            else:
                executor.run()
        except Exception as error:
            failure = error
        unfinished = executor.get_incomplete_ranks(skip_completed=True)
        if unfinished:
            raise DataError(_failure_text(stage, unfinished, work, failure)) from failure
        if failure is not None:
            raise failure


def _run_here(stage: Stage, executor: Any, workers: int) -> None:
    """What is left of a stage, by a local executor.

    Its own ``run`` would deal tasks to a pool that waits for ever for a worker that was killed; ours tells.
    """
    tasks = executor.get_incomplete_ranks()
    if not tasks:
        return
    pool = WorkerPool(min(workers, len(tasks)), executor)
    with ProgressLine(f"{stage.name:<16}", pool.counters, len(tasks), of_tasks=True):
        for _ in pool.run(_run_task, tasks):
            pass


def _run_task(executor: Any, counters: Counters, task: int) -> None:
    """One task, logged and marked as complete by the executor; its log goes to a file, and not to the terminal too."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        executor._run_for_rank(task)
    counters.add(0, 0, 1)


def _failure_text(stage: Stage, unfinished: list[int], work: Path, failure: Exception | None) -> str:
    for task in unfinished:
        words = _failures(work, stage) / f"{task:05d}.txt"
        if words.is_file():
            return (
                f"{words.read_text().rstrip()}\n  ({stage.name}, task {task}; {len(unfinished)} of {stage.tasks} tasks "
                f"are not done. Logs: {work / stage.name / 'logs'}. The same command does what is left)"
            )
    return (
        f"{stage.name}: {len(unfinished)} of {stage.tasks} tasks are not done, the first is {unfinished[0]}"
        f"{f': {failure}' if failure else ''}\n  a worker may have been killed, most often for want of memory; logs: "
        f"{work / stage.name / 'logs'}\n  run the same command again to do what is left"
    )


def _submit(stages: Sequence[Stage], settings: SlurmSettings, work: Path) -> Outcome:
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise DataError(
            "this is a task of a SLURM job array, from which no arrays can be submitted\n"
            "  run the command on a login node, or in a job that is not an array"
        )
    if shutil.which("sbatch") is None:
        raise DataError(
            "--executor slurm: there is no `sbatch` on this machine; run the command on a login node"
        )
    jobs: dict[str, str] = {}
    before: Any = None
    for stage in stages:
        executor = _executor(stage, settings, work, depends=before)
        try:
            executor.run()
        except subprocess.CalledProcessError as error:
            told = f"; submitted already: {', '.join(jobs.values())}" if jobs else ""
            raise DataError(
                f"{stage.name}: sbatch refused the job (exit code {error.returncode}; its reason is above){told}\n"
                "  cancel those with scancel, correct the --slurm options and run the command again"
            ) from error
        if executor.job_id != -1:  # datatrove's word for "all its tasks are complete"
            jobs[stage.name] = executor.job_id
        before = executor
    return Outcome(done=not jobs, jobs=jobs)


def _executor(stage: Stage, settings: ExecutorSettings, work: Path, depends: Any = None) -> Any:
    step = _step(stage, work)
    directory = str(work / stage.name)
    if isinstance(settings, LocalSettings):
        from datatrove.executor.local import LocalPipelineExecutor

        return LocalPipelineExecutor(
            [step], tasks=stage.tasks, workers=settings.workers, logging_dir=directory
        )
    if isinstance(settings, RaySettings):
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor(
            [step],
            tasks=stage.tasks,
            workers=settings.workers or -1,
            cpus_per_task=settings.cpus_per_task,
            mem_per_cpu_gb=settings.memory_per_cpu_gb,
            logging_dir=directory,
        )
    from datatrove.executor.slurm import SlurmPipelineExecutor

    account = {"account": settings.account} if settings.account else {}
    return SlurmPipelineExecutor(
        [step],
        tasks=stage.tasks,
        time=settings.time,
        partition=settings.partition,
        cpus_per_task=settings.cpus_per_task,
        mem_per_cpu_gb=settings.memory_per_cpu_gb,
        workers=settings.max_running or -1,
        job_name=f"salamandra-{stage.name}",
        qos=settings.qos,
        env_command=settings.env_command or _this_python(),
        # A stage whose predecessor failed can never start; it is not to wait in the queue for ever.
        sbatch_args={"kill-on-invalid-dep": "yes", **account, **settings.options},
        depends=depends,
        logging_dir=directory,
        mail_type="NONE",
    )


def _step(stage: Stage, work: Path) -> StageStep:
    try:
        from salamandra_data.execution.stage_step import StageStep
    except ImportError as error:
        raise DataError(
            f"--executor needs the package datatrove: {error}\n  pip install 'megatron-salamandra[data]'"
        ) from error
    return StageStep(stage, _failures(work, stage))


def _failures(work: Path, stage: Stage) -> Path:
    return work / stage.name / "failures"


def _this_python() -> str:
    return f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"


class _RayCluster:
    """The connection to a cluster while the block runs; one that was there before stays."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._connected_here = False

    def __enter__(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise DataError(
                "--executor ray needs the package ray\n  pip install 'megatron-salamandra[data,ray]'"
            ) from error
        if not ray.is_initialized():
            try:
                ray.init(address=self._settings.address, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise DataError(
                    f"--ray-address {self._settings.address}: no Ray cluster answers: {error}"
                ) from error
            self._connected_here = True

    def __exit__(self, *ended_with: object) -> None:
        if self._connected_here:
            import ray

            ray.shutdown()
