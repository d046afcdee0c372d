"""Tokenization from input files to shards: read them, plan the shards, encode, publish.

The four are passes, done by processes of this machine or by tasks on others; what one leaves for the next lies in the
directory of the job, where the same command, started again, finds it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.directory_lock import sole_use
from salamandra_data.execution import Counters, Outcome, Pass, PassExecutor, Processes
from salamandra_data.readers import find_inputs
from salamandra_data.shards import is_whole, tokenizer_file
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import AUTO, EncoderChoice, choose_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import InputFile, Survey, input_groups, survey_files
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.job_directory import (
    JobDirectory,
    job_identity,
    own_directory,
    shared_directory,
)
from salamandra_data.tokenization.plan import Plan, PlannedShard, ShardRange, finished_shards, plan_shards
from salamandra_data.tokenization.result import TokenizeResult
from salamandra_data.tokenization.second_pass import SecondPass
from salamandra_data.working_directory import remove_abandoned

_CHOICE = "encoder"
_LARGE_BYTES = 16 << 20  # two ranges of a shard: see plan.py


def tokenize_documents(job: TokenizeJob, workers: int = 1) -> TokenizeResult:
    """Tokenize the documents of a job into shards in ``job.out``, by ``workers`` processes of this machine.

    A shard that an earlier run of the same job finished is kept and not made again, and what an interrupted one read
    or encoded is not read or encoded again.

    Raises:
        DataError: bad options or input, ``out`` inside the input, shards of another job in the way, a damaged
            intermediate copy, a killed worker.
        UserError: a full disk, or another run at work in ``out``. Nothing incomplete is left in sight, and finished
            shards stay.
    """
    _, result = tokenize_with(job, Processes(workers))
    assert result is not None
    return result


def tokenize_with(job: TokenizeJob, executor: PassExecutor) -> tuple[Outcome, TokenizeResult | None]:
    """As :func:`tokenize_documents`, by an executor: the same shards, whichever it is.

    Args:
        job: whose ``out`` and ``scratch`` all machines reach.
        executor: :class:`Processes`, or :class:`Tasks` on other machines.
    Returns:
        What was done or submitted, and the result once all of it is done. Under SLURM that is at a later call.
    Raises:
        UserError: as :func:`tokenize_documents`; or the executor cannot be used here.
    """
    job.documents.keys.check()
    found = find_inputs(job.documents.input, out=job.out)
    job = job.model_copy(
        update={
            "tokenizer": tokenizer_file(job.tokenizer).absolute(),
            "out": job.out.absolute(),
            "scratch": None if job.scratch is None else job.scratch.absolute(),
        }
    )
    files = [path.absolute() if isinstance(path, Path) else path for path in found]
    reference = cached_encoder(job.tokenizer)
    identity = job_identity(job, files, reference.identity.sha256)
    here = isinstance(executor, Processes)
    with (
        sole_use(job.out),
        own_directory(job, identity) if here else nullcontext(shared_directory(job, identity)) as directory,
    ):
        if (result := _earlier_result(directory)) is not None:
            return Outcome(done=True), result
        directory.make()
        groups = input_groups(job, files)
        several = isinstance(executor, Processes) and executor.workers > 1
        with_reading = several and job.encoder == AUTO and _is_large(groups)
        if not with_reading:
            _choose_encoder(job, directory)
        passes: list[Pass[Any]] = [
            ReadPass(job, directory, groups, with_reading),
            PlanPass(
                job,
                directory,
                files,
                [_survey_name(group) for group in groups],
                executor.units_wanted,
            ),
            EncodePass(job, directory, files),
            PublishPass(job, directory, files),
        ]
        try:
            outcome = executor.run(passes, directory.path)
        finally:
            remove_abandoned(job.out, "tokenize")  # of a worker that was killed
        return outcome, directory.load("result", TokenizeResult) if outcome.done else None


@dataclass(frozen=True)
class ReadPass(Pass[Sequence[InputFile]]):
    """First pass: reads input files once, and writes their documents as sorted runs.

    Where ``chooses_encoder``, one worker tries the encoders while the others read; a unit without files
    stands for it.
    """

    job: TokenizeJob
    directory: JobDirectory
    groups: Sequence[Sequence[InputFile]]
    chooses_encoder: bool

    name, title = "read", "reading   "

    def most_tasks(self) -> int:
        """One for each unit."""
        return len(self.units())

    def units(self) -> Sequence[Sequence[InputFile]]:
        """Input files, some small ones together."""
        return [(), *self.groups] if self.chooses_encoder else self.groups

    def left(self, units: Sequence[Sequence[InputFile]]) -> Sequence[Sequence[InputFile]]:
        """Those not read before. Encoders are tried at every start: they may have changed since the one before."""
        return [files for files in units if not files or not self.directory.has(_survey_name(files))]

    def size(self, unit: Sequence[InputFile]) -> int:
        """Bytes of the files as they are stored."""
        return sum(file.size_bytes for file in unit)

    def do(self, counters: Counters, unit: Sequence[InputFile]) -> None:
        """Leave what the files hold, and where their documents are now."""
        if not unit:
            _choose_encoder(self.job, self.directory)
            return
        survey = survey_files(self.job, self.directory.runs, counters, unit)
        self.directory.save(_survey_name(unit), survey)


@dataclass(frozen=True)
class PlanPass(Pass[None]):
    """Decides the shards from what the first pass found, at every start: some of them may be finished by now."""

    job: TokenizeJob
    directory: JobDirectory
    files: Sequence[Location]
    surveys: Sequence[str]
    units_wanted: int

    name = "plan"

    def most_tasks(self) -> int:
        """One."""
        return 1

    def units(self) -> Sequence[None]:
        """One: the whole job."""
        return [None]

    def do(self, counters: Counters, unit: None) -> None:
        """Leave the plan."""
        surveys = [self.directory.load(name, Survey) for name in self.surveys]
        choice = self.directory.load(_CHOICE, EncoderChoice)
        cache = self.directory.encoder
        plan = plan_shards(self.job, self.files, surveys, choice, cache, self.units_wanted)
        self.directory.save("plan", plan)


@dataclass(frozen=True)
class _PlannedPass:
    """What the passes after the plan have in common."""

    job: TokenizeJob
    directory: JobDirectory
    files: Sequence[Location]

    @cached_property
    def second_pass(self) -> SecondPass:
        """The plan, once it is there, and what carries it out."""
        plan = self.directory.load("plan", Plan)
        return SecondPass(self.job, plan, self.directory, [str(path) for path in self.files])


@dataclass(frozen=True)
class EncodePass(_PlannedPass, Pass[ShardRange]):
    """Second pass: encodes the documents of each shard, or of each range of one."""

    name, title = "write", "tokenizing"

    def units(self) -> Sequence[ShardRange]:
        """The ranges of all shards that were not there when the plan was made."""
        return self.second_pass.plan.open_ranges()

    def left(self, units: Sequence[ShardRange]) -> Sequence[ShardRange]:
        """Those neither in a finished shard nor encoded before."""
        finished = finished_shards(self.job, self.second_pass.plan.shards)
        return [
            unit
            for unit in units
            if unit.shard.prefix not in finished and not self.second_pass.is_encoded(unit)
        ]

    def size(self, unit: ShardRange) -> int:
        """Bytes of text, about."""
        return unit.text_bytes

    def do(self, counters: Counters, unit: ShardRange) -> None:
        """Write the shard, or the files of its range."""
        self.second_pass.encode(counters, unit)


@dataclass(frozen=True)
class PublishPass(_PlannedPass, Pass[PlannedShard]):
    """Joins the ranges of shards that were cut; then counts what there is, and removes what only the passes needed."""

    name, title = "finish", "joining   "

    def most_tasks(self) -> int:
        """One, which has the last word."""
        return 1

    def units(self) -> Sequence[PlannedShard]:
        """The shards that were cut into ranges."""
        plan = self.second_pass.plan
        return [shard for shard in plan.shards if shard.ranges > 1 and shard.prefix not in plan.finished]

    def left(self, units: Sequence[PlannedShard]) -> Sequence[PlannedShard]:
        """Those not joined before."""
        finished = finished_shards(self.job, self.second_pass.plan.shards)
        return [unit for unit in units if unit.prefix not in finished]

    def size(self, unit: PlannedShard) -> int:
        """Bytes of text, about."""
        return unit.text_bytes

    def do(self, counters: Counters, unit: PlannedShard) -> None:
        """Publish a shard."""
        self.second_pass.join(counters, unit)

    def conclude(self) -> None:
        """Leave the result."""
        plan = self.second_pass.plan
        self.directory.save("result", plan.result(finished_shards(self.job, plan.shards)))
        for unneeded in (self.directory.runs, self.directory.ranges):
            shutil.rmtree(unneeded, ignore_errors=True)


def _choose_encoder(job: TokenizeJob, directory: JobDirectory) -> None:
    """Leave the encoder that all later passes take."""
    reference = cached_encoder(job.tokenizer)
    directory.save(_CHOICE, choose_encoder(job.encoder, reference, job.tokenizer, directory.encoder))


def _is_large(groups: Sequence[Sequence[InputFile]]) -> bool:
    """Whether workers are of use, so that they are started for reading in any case."""
    return sum(file.size_bytes for group in groups for file in group) >= _LARGE_BYTES


def _survey_name(files: Sequence[InputFile]) -> str:
    return f"survey-{files[0].number:06d}"


def _earlier_result(directory: JobDirectory) -> TokenizeResult | None:
    """The result of the same command, where its shards are still there; else its directory is emptied."""
    if not directory.has("result"):
        return None
    result = directory.load("result", TokenizeResult)
    if all(is_whole(prefix) for group in result.groups for prefix in group.shards):
        return result
    shutil.rmtree(directory.path)
    return None
