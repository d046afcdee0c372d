"""The command: from input files to shards, on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megatron_salamandra.foundation.directory_lock import sole_use
from megatron_salamandra.foundation.progress import ProgressLine
from salamandra_data.execution.worker_pool import WorkerPool
from salamandra_data.readers import find_inputs
from salamandra_data.shards import ShardManifest, tokenizer_file
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import choose_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import FirstPass, Survey, survey_files
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.job_plan import plan_shards, survey_tasks
from salamandra_data.tokenization.kept_work import is_kept, job_identity, keep, kept, work_of_job
from salamandra_data.tokenization.result import TokenizeResult
from salamandra_data.tokenization.second_pass import SecondPass, ShardTask, write_shard
from salamandra_data.working_directory import working_directory


def tokenize(job: TokenizeJob) -> TokenizeResult:
    """Tokenize ``job.inputs`` into shards in ``job.out``.

    A shard that an earlier run of the same job finished is kept and not made again, and what an interrupted one read
    is not read again.

    Raises:
        DataError: bad options or input, shards of another job in the way, another run at work in ``out``, a full
            disk, a killed worker. Nothing incomplete is left in sight, and finished shards stay.
    """
    job.check()
    job = replace(job, tokenizer=tokenizer_file(job.tokenizer))
    files = find_inputs(job.inputs)
    reference = cached_encoder(job.tokenizer)
    with (
        sole_use(job.out),
        work_of_job(job, job_identity(job, files, reference.identity.sha256)) as work,
        working_directory(job.out, "tokenize") as staging,
    ):
        choice = choose_encoder(job.encoder, reference, job.tokenizer, work)
        plan = plan_shards(job, files, _survey(job, files, work), choice, work, staging)
        finished = plan.finished(job)
        written = _write_shards(
            job, plan.state, [task for task in plan.shards if task.prefix not in finished]
        )
    return plan.result(written, finished)


def _survey(job: TokenizeJob, files: list[Location], work: Path) -> list[Survey]:
    tasks, size = survey_tasks(job, files)
    names = {task[0].number: f"survey-{task[0].number:06d}" for task in tasks}
    open_tasks = [task for task in tasks if not is_kept(work, names[task[0].number])]
    if open_tasks:
        size_left = round(size * sum(file.share for task in open_tasks for file in task))
        pool = WorkerPool(min(job.workers, len(open_tasks)), FirstPass(job, work))
        with ProgressLine("reading   ", pool.counters.units, size_left, pool.counters.rates):
            for survey in pool.run(survey_files, open_tasks):
                keep(work, names[survey.first_file], survey)
    return [kept(work, name) for _, name in sorted(names.items())]


def _write_shards(job: TokenizeJob, state: SecondPass, tasks: list[ShardTask]) -> dict[Path, ShardManifest]:
    if not tasks:
        return {}
    pool = WorkerPool(min(job.workers, len(tasks)), state)
    with ProgressLine(
        "tokenizing", pool.counters.units, sum(task.text_bytes for task in tasks), pool.counters.rates
    ):
        return dict(pool.run(write_shard, tasks))
