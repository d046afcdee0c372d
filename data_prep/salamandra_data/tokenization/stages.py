"""The command on several machines: both passes as stages, whose tasks share a directory and nothing else.

``read`` writes the runs of some input files, ``plan`` decides the shards, ``write`` makes them, and ``finish`` counts
and removes the runs. What a task found is pickled into the directory, which is named after the job, so that the same
command finds it again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_salamandra.foundation.directory_lock import sole_use
from salamandra_data.execution import ExecutorSettings, Outcome, Stage, run_stages, share
from salamandra_data.execution.worker_pool import WorkerPool
from salamandra_data.readers import find_inputs
from salamandra_data.shards import is_whole, tokenizer_file
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import EncoderChoice, choose_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import FirstPass, InputFile, Survey, survey_files
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.job_plan import JobPlan, plan_shards, survey_tasks
from salamandra_data.tokenization.kept_work import is_kept, job_identity, keep, kept
from salamandra_data.tokenization.result import TokenizeResult
from salamandra_data.tokenization.second_pass import write_shard
from salamandra_data.working_directory import working_directory


def tokenize_in_stages(
    job: TokenizeJob, settings: ExecutorSettings, tasks: int
) -> tuple[Outcome, TokenizeResult | None]:
    """As :func:`tokenize`, on the machines of an executor: the same shards, whatever ``tasks`` and machines.

    Args:
        job: whose ``out`` and ``scratch`` all machines reach; ``workers`` is not used.
        settings: the executor.
        tasks: into how many tasks reading and writing are cut, at most.
    Returns:
        What was submitted, and the result once all of it is done. Under SLURM that is at a later call.
    Raises:
        DataError: as :func:`tokenize`; or the executor cannot be used here.
    """
    job.check()
    job = replace(
        job,
        tokenizer=tokenizer_file(job.tokenizer).absolute(),
        out=job.out.absolute(),
        scratch=(job.scratch or job.out).absolute(),
    )
    files = [path.absolute() if isinstance(path, Path) else path for path in find_inputs(job.inputs)]
    with sole_use(job.out):
        return _run(job, files, settings, tasks)


def _run(
    job: TokenizeJob, files: list[Location], settings: ExecutorSettings, tasks: int
) -> tuple[Outcome, TokenizeResult | None]:
    reference = cached_encoder(job.tokenizer)
    assert job.scratch is not None
    work = job.scratch / f".stages-{job_identity(job, files, reference.identity.sha256)}"
    result = _result(work)
    if result is not None and not _is_whole(result):
        shutil.rmtree(work)
        result = None
    if result is not None:
        return Outcome(done=True, jobs={}), result
    with working_directory(job.out, "tokenize") as cache:
        choice = choose_encoder(job.encoder, reference, job.tokenizer, cache)
    groups, _ = survey_tasks(job, files)
    reading = min(tasks, len(groups))
    stages = [
        Stage("read", reading, _Read(job, groups, reading, work)),
        Stage("plan", 1, _Plan(job, files, reading, choice, work)),
        Stage("write", tasks, _Write(job, tasks, work)),
        Stage("finish", 1, _Finish(job, work)),
    ]
    outcome = run_stages(stages, settings, work)
    return outcome, _result(work) if outcome.done else None


@dataclass(frozen=True)
class _Read:
    """First pass over a share of the input files."""

    job: TokenizeJob
    groups: list[list[InputFile]]
    tasks: int
    work: Path

    def __call__(self, task: int) -> None:
        runs = _runs(self.work)
        runs.mkdir(parents=True, exist_ok=True)
        pool = WorkerPool(1, FirstPass(self.job, runs))
        surveys = list(pool.run(survey_files, share(self.groups, task, self.tasks)))
        keep(self.work, f"survey-{task:05d}", surveys)


@dataclass(frozen=True)
class _Plan:
    """What the second pass is to do."""

    job: TokenizeJob
    files: list[Location]
    tasks: int
    choice: EncoderChoice
    work: Path

    def __call__(self, task: int) -> None:
        surveys: list[Survey] = []
        for number in range(self.tasks):
            surveys += kept(self.work, f"survey-{number:05d}")
        surveys.sort(key=lambda survey: survey.first_file)
        runs = _runs(self.work)
        plan = plan_shards(self.job, self.files, surveys, self.choice, cache=runs, staging=runs)
        keep(self.work, "plan", (plan, set(plan.finished(self.job))))


@dataclass(frozen=True)
class _Write:
    """Second pass over a share of the shards."""

    job: TokenizeJob
    tasks: int
    work: Path

    def __call__(self, task: int) -> None:
        plan: JobPlan = kept(self.work, "plan")[0]
        finished = plan.finished(self.job)
        mine = [shard for shard in share(plan.shards, task, self.tasks) if shard.prefix not in finished]
        with working_directory(self.job.out, "tokenize") as staging:
            pool = WorkerPool(1, replace(plan.state, staging=staging))
            for _ in pool.run(write_shard, mine):
                pass


@dataclass(frozen=True)
class _Finish:
    """Counts what was made, and removes what only the passes needed."""

    job: TokenizeJob
    work: Path

    def __call__(self, task: int) -> None:
        plan, done = kept(self.work, "plan")
        there = plan.finished(self.job)
        keep(
            self.work,
            "result",
            plan.result(
                {prefix: manifest for prefix, manifest in there.items() if prefix not in done},
                {prefix: manifest for prefix, manifest in there.items() if prefix in done},
            ),
        )
        shutil.rmtree(_runs(self.work), ignore_errors=True)


def _result(work: Path) -> TokenizeResult | None:
    return kept(work, "result") if is_kept(work, "result") else None


def _is_whole(result: TokenizeResult) -> bool:
    return all(is_whole(prefix) for group in result.groups for prefix in group.shards)


def _runs(work: Path) -> Path:
    return work / "runs"
