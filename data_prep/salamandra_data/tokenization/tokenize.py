"""The command: from input files to shards, on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from salamandra_data.directory_lock import sole_use
from salamandra_data.execution.progress_line import ProgressLine
from salamandra_data.execution.worker_pool import WorkerPool
from salamandra_data.indexed import ShardManifest
from salamandra_data.readers import find_inputs
from salamandra_data.shard_files import tokenizer_file
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import choose_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import FirstPass, Survey, survey_files
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.job_plan import plan_shards, survey_tasks
from salamandra_data.tokenization.result import TokenizeResult
from salamandra_data.tokenization.second_pass import SecondPass, ShardTask, write_shard
from salamandra_data.working_directory import working_directory


def tokenize(job: TokenizeJob) -> TokenizeResult:
    """Tokenize ``job.inputs`` into shards in ``job.out``.

    A shard that an earlier run of the same job finished is kept and not made again.

    Raises:
        DataError: bad options or input, shards of another job in the way, another run at work in ``out``, a full
            disk, a killed worker. Nothing incomplete is left, and finished shards stay.
    """
    job.check()
    job = replace(job, tokenizer=tokenizer_file(job.tokenizer))
    files = find_inputs(job.inputs)
    reference = cached_encoder(job.tokenizer)
    with (
        sole_use(job.out),
        working_directory(job.scratch or job.out, "tokenize") as scratch,
        working_directory(job.out, "tokenize") as staging,
    ):
        choice = choose_encoder(job.encoder, reference, job.tokenizer, scratch)
        plan = plan_shards(job, files, _survey(job, files, scratch), choice, scratch, staging)
        finished = plan.finished(job)
        written = _write_shards(
            job, plan.state, [task for task in plan.shards if task.prefix not in finished]
        )
    return plan.result(written, finished)


def _survey(job: TokenizeJob, files: list[Location], scratch: Path) -> list[Survey]:
    tasks, size = survey_tasks(job, files)
    pool = WorkerPool(min(job.workers, len(tasks)), FirstPass(job, scratch))
    with ProgressLine("reading   ", pool.counters, size):
        surveys = list(pool.run(survey_files, tasks))
    return sorted(surveys, key=lambda survey: survey.first_file)


def _write_shards(job: TokenizeJob, state: SecondPass, tasks: list[ShardTask]) -> dict[Path, ShardManifest]:
    if not tasks:
        return {}
    pool = WorkerPool(min(job.workers, len(tasks)), state)
    written: dict[Path, ShardManifest] = {}
    with ProgressLine("tokenizing", pool.counters, sum(task.text_bytes for task in tasks)):
        for prefix, manifest in pool.run(write_shard, tasks):
            if manifest is not None:
                written[prefix] = manifest
    return written
