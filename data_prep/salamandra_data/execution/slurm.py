"""Stages as SLURM job arrays: submitting them, each to start when the one before ended well, and finding them again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from datatrove.executor.slurm import SlurmPipelineExecutor, launch_slurm_job
from datatrove.utils.logging import logger

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.module_path import SAFE_PATH
from salamandra_data.errors import DataError
from salamandra_data.execution.settings import SlurmSettings
from salamandra_data.execution.stage import Outcome
from salamandra_data.execution.stage_step import StageStep
from salamandra_data.execution.task_file import ArrayTasks

_DEFAULT_MAX_ARRAY_SIZE = 1001
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)
_ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_TRIES_IN_VAIN = 2
_SUBMITTED = re.compile(r"Submitted batch job (\d+)")

Jobs = Mapping[str, Sequence[str]]
"""Numbers of jobs by stage; a stage of many tasks is more than one job array."""


class JobRecord:
    """Kept in the directory of a run, so that the same command finds its jobs again."""

    def __init__(self, work: Path) -> None:
        self._file = work / "slurm-jobs.json"

    def read(self) -> Jobs:
        """The jobs of the last submission; empty if there was none."""
        return cast(Jobs, json.loads(self._file.read_text())) if self._file.is_file() else {}

    def write(self, jobs: Jobs) -> None:
        """Replace what was recorded."""
        atomic_write_bytes(self._file, json.dumps(jobs).encode())

    def in_queue(self) -> dict[str, Sequence[str]]:
        """Those of the recorded jobs that are pending or running.

        Raises:
            DataError: there are recorded jobs, and squeue does not say what became of them.
        """
        jobs = self.read()
        numbers = [number for stage in jobs.values() for number in stage]
        if not numbers:
            return {}
        there = self._pending_or_running(numbers)
        queued = {stage: [number for number in jobs[stage] if number in there] for stage in jobs}
        return {stage: left for stage, left in queued.items() if left}

    def _pending_or_running(self, numbers: Sequence[str]) -> set[str]:
        # %F is the number of a whole array, whichever of its tasks a line is about.
        command = ["squeue", "--noheader", "--format=%F", f"--jobs={','.join(numbers)}"]
        try:
            answer = _ask(command, check=True)
        except FileNotFoundError as error:
            raise self._unknown("there is no `squeue` on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise self._unknown(f"squeue did not answer in {error.timeout:g} s") from error
        except subprocess.CalledProcessError as error:
            if "Invalid job id" in error.stderr:  # SLURM has forgotten the only one asked for
                return set()
            raise self._unknown(f"squeue: {error.stderr.strip()}") from error
        return set(answer.stdout.split())

    def _unknown(self, why: str) -> DataError:
        return DataError(
            f"{self._file}: this run was submitted to SLURM, and it is not known whether its jobs still run: {why}\n"
            "  run the command on a login node of that cluster, or remove the file if the jobs are gone"
        )


def submit(steps: Sequence[StageStep], settings: SlurmSettings, work: Path) -> Outcome:
    """Submit what is not complete, unless jobs of an earlier submission are pending or running.

    Args:
        steps: of the stages, in their order.
        settings: of the jobs.
        work: directory of the run.
    Raises:
        DataError: jobs cannot be submitted from here, or sbatch refused one.
    """
    _check_place()
    record = JobRecord(work)
    if queued := record.in_queue():
        return Outcome(done=False, jobs=queued)
    if settings.before_submitting is not None:
        settings.before_submitting(settings, _tasks_left(steps))
    failure = _failure(steps) if record.read() else None
    jobs: dict[str, Sequence[str]] = {}
    needed: list[str] = []
    array_size = _max_array_size()
    for step in steps:
        if not step.record.unfinished():
            continue
        numbers = _JobNumbers()
        try:
            with _silence():
                _StageArrays(step, settings, numbers, needed, array_size).run()
        except subprocess.CalledProcessError as error:
            submitted = ", ".join(number for taken in (*jobs.values(), numbers.taken) for number in taken)
            raise DataError(
                f"{step.record.name}: sbatch refused the job (exit code {error.returncode}; its reason is above)"
                f"{f'; submitted already: {submitted}' if submitted else ''}\n"
                "  cancel those with scancel or wait for them, correct the --slurm options and run the command again"
            ) from error
        finally:  # also what was submitted before a refusal must be known to the next call
            if numbers.taken:
                jobs[step.record.name] = numbers.taken
                record.write(jobs)
        needed = numbers.taken
    return Outcome(done=False, jobs=jobs, submitted=True, failure=failure)


def submit_and_wait(steps: Sequence[StageStep], settings: SlurmSettings, work: Path) -> Outcome:
    """Submit what is not complete, wait, and submit again what failed, as long as that completes further tasks.

    Raises:
        DataError: as :func:`submit` does; or tasks failed twice without another one having been completed meanwhile.
    """
    record, in_vain = JobRecord(work), 0
    left = _tasks_left(steps)
    while left:
        outcome = submit(steps, settings, work)
        if outcome.failure is not None:
            print(f"of what was submitted before, this failed and is submitted again:\n{outcome.failure}")
        jobs = ", ".join(number for numbers in outcome.jobs.values() for number in numbers)
        print(f"waiting for SLURM jobs {jobs}", flush=True)
        _wait(record)
        before, left = left, _tasks_left(steps)
        in_vain = 0 if left < before else in_vain + 1
        if in_vain == _TRIES_IN_VAIN:
            raise DataError(_failure(steps) or "tasks are not done")
    return Outcome(done=True)


def _wait(record: JobRecord) -> None:
    """Until the jobs have left the queue; a SLURM that does not answer now is asked again."""
    there, told = True, False
    while there:
        time.sleep(_LOOK_SECONDS)
        try:
            there = bool(record.in_queue())
        except DataError as error:
            if not told:
                print(f"{error}\n  asking again", flush=True)
            told = True


def _tasks_left(steps: Sequence[StageStep]) -> int:
    return sum(len(step.record.unfinished()) for step in steps)


class _JobNumbers:
    """Takes the number of a job from the answer of sbatch, and keeps it."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def __call__(self, answer: str) -> str:
        match = _SUBMITTED.search(answer)
        if match is None:
            raise DataError(f"sbatch: {answer.strip()!r} does not hold the number of a job")
        self.taken.append(match[1])
        return match[1]


class _StageArrays(SlurmPipelineExecutor):
    """The job arrays of a stage."""

    def __init__(
        self,
        step: StageStep,
        settings: SlurmSettings,
        numbers: _JobNumbers,
        needed: Sequence[str],
        array_size: int,
    ) -> None:
        self._step, self._array_size = step, array_size
        account = {"account": settings.account} if settings.account else {}
        super().__init__(
            [step],
            tasks=step.stage.tasks,
            time=settings.time,
            partition=settings.partition,
            cpus_per_task=settings.cpus_per_task,
            mem_per_cpu_gb=settings.memory_per_cpu_gb,
            workers=settings.max_running or -1,
            job_name=f"salamandra-{step.stage.name}",
            qos=settings.qos,
            env_command=_environment(settings),
            # A stage whose predecessor failed can never start; it is not to wait in the queue for ever.
            sbatch_args={"kill-on-invalid-dep": "yes", **account, **settings.options},
            max_array_size=array_size,
            # datatrove would name only the last array of the stage before, which may have had several.
            depends_job_id=":".join(needed) or None,
            job_id_retriever=numbers,
            # Since SLURM 22.05 srun does not take it from the job: the task would have one core.
            srun_args={"cpus-per-task": settings.cpus_per_task},
            logging_dir=str(step.record.directory),
            mail_type="NONE",
        )

    def launch_job(self) -> None:
        """Submit what is left. datatrove would leave a pickle for the tasks, which is a program."""
        tasks = self._step.record.unfinished()
        size = min(len(tasks), self._array_size)
        file = self._step.record.directory / "tasks.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        packages = ArrayTasks(
            self._step.stage, self._step.record, self._step.before, tuple(tasks), self._array_size
        ).save(file)
        # -P: what lies in the directory from which the command was given is no module of it.
        program = [Path(sys.executable).name, "-P", "-m", "salamandra_data.execution.array_task"]
        command = shlex.join([*program, str(file), *packages])
        options = " ".join(f"--{name}={value}" for name, value in self.srun_args.items())
        script = self.get_launch_file_contents(
            self.get_sbatch_args(size), f"srun {options} -l -n 1 {command}"
        )
        atomic_write_bytes(file.with_name("launch_script.slurm"), script.encode())  # for people
        for number in range(-(-len(tasks) // size)):
            dependency = [f"--dependency={self.dependency}"] if self.dependency else []
            self.job_id = launch_slurm_job(
                script, self.job_id_retriever, f"--export=ALL,RUN_OFFSET={number}", *dependency
            )

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """The script, whose paths may have spaces in them: sbatch cuts there unless a value is between quotes."""
        quoted = {name: f'"{value}"' if " " in str(value) else value for name, value in sbatch_args.items()}
        text: str = super().get_launch_file_contents(quoted, run_script)
        return text

    def launch_merge_stats(self) -> None:
        """Nothing: it would be one more job for each stage, adding up statistics that a stage does not have."""


@contextmanager
def _silence() -> Iterator[None]:
    """datatrove logs each job at length, for which our caller has one line."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


def _check_place() -> None:
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise DataError(
            "this is a task of a SLURM job array, from which no arrays can be submitted\n"
            "  run the command on a login node, or in a job that is not an array"
        )
    if shutil.which("sbatch") is None:
        raise DataError(
            "--executor slurm: there is no `sbatch` on this machine; run the command on a login node"
        )


def _failure(steps: Sequence[StageStep]) -> str | None:
    for step in steps:
        if unfinished := step.record.unfinished():
            return step.record.failure(unfinished)
    return None


def _max_array_size() -> int:
    """How many tasks the cluster lets an array have."""
    try:
        answer = _ask(["scontrol", "show", "config"])
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _DEFAULT_MAX_ARRAY_SIZE
    match = _MAX_ARRAY_SIZE.search(answer.stdout)
    return int(match[1]) if match else _DEFAULT_MAX_ARRAY_SIZE


def _ask(command: Sequence[str], *, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=check,
        stdin=subprocess.DEVNULL,
        timeout=_ANSWER_SECONDS,
    )


def _environment(settings: SlurmSettings) -> str:
    # Submitted from inside another job, the array inherits that job's memory, which srun refuses beside its own. The
    # setup's programs are not ours, and may import what lies beside them; ours is given -P.
    python = (
        f"unset SLURM_MEM_PER_NODE SLURM_MEM_PER_GPU {SAFE_PATH}; "
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    )
    return f"{python}; {settings.setup}" if settings.setup else python
