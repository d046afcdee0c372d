"""The run as a whole: survey, plan the shards, write them, and say what came out."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from salamandra_data.atomic_write import atomic_file
from salamandra_data.errors import DataError
from salamandra_data.indexed import ShardManifest
from salamandra_data.readers import DocumentFile, find_inputs
from salamandra_data.shard_files import keep_tokenizer, tokenizer_file
from salamandra_data.storage import Location
from salamandra_data.text_table import text_table
from salamandra_data.tokenization.backends import EncoderChoice, choose_encoder, guarded_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import FirstPass, GroupCount, InputFile, Survey, survey_files
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.progress_line import ProgressLine
from salamandra_data.tokenization.second_pass import SecondPass, ShardTask, write_shard
from salamandra_data.tokenization.shard_plan import finished_shards, plan_group
from salamandra_data.tokenization.sorted_runs import Group
from salamandra_data.tokenization.worker_pool import WorkerPool
from salamandra_data.working_directory import working_directory

_TOGETHER_BYTES = 16 << 20


@dataclass
class GroupResult:
    """What was written for one language and split."""

    language: str
    split: str
    documents: int = 0
    tokens: int = 0
    utf8_bytes: int = 0
    shards: list[Path] = field(default_factory=list)


@dataclass
class TokenizeResult:
    """What a run wrote, passed over and found already done.

    Attributes:
        groups: what each language and split holds.
        empty_documents: by language.
        malformed_lines: lines passed over; ``skipped_report`` lists them.
        shards_already_done: shards of an earlier run that were kept.
        encoder: what encoded the others, and why no faster one did.
        documents_checked: how many documents SentencePiece encoded as well, with the same ids.
    """

    groups: list[GroupResult]
    empty_documents: Counter[str]
    malformed_lines: int
    skipped_report: Path | None
    shards_already_done: int
    encoder: EncoderChoice
    documents_checked: int

    def table(self) -> str:
        """Documents, tokens, bytes and bytes per token of each language and split."""
        total = GroupResult("all", "")
        rows: list[tuple[str, ...]] = []
        for group in self.groups:
            rows.append(_row(group, len(group.shards)))
            total.documents += group.documents
            total.tokens += group.tokens
            total.utf8_bytes += group.utf8_bytes
        heading = ("language", "split", "documents", "tokens", "UTF-8 bytes", "bytes/token", "shards")
        return text_table(heading, rows, _row(total, sum(len(group.shards) for group in self.groups)))


def _row(group: GroupResult, shards: int) -> tuple[str, ...]:
    return (
        group.language,
        group.split,
        f"{group.documents:,}",
        f"{group.tokens:,}",
        f"{group.utf8_bytes:,}",
        f"{group.utf8_bytes / max(group.tokens, 1):.3f}",
        f"{shards:,}",
    )


def tokenize(job: TokenizeJob) -> TokenizeResult:
    """Tokenize ``job.inputs`` into shards in ``job.out``.

    A shard that an earlier run of the same job finished is kept and not made again.

    Raises:
        DataError: bad options or input, shards of another job in the way, a full disk, a killed worker.
            Nothing incomplete is left, and finished shards stay.
    """
    job.check()
    job = replace(job, tokenizer=tokenizer_file(job.tokenizer))
    files = find_inputs(job.inputs)
    reference = cached_encoder(job.tokenizer)
    with (
        working_directory(job.scratch or job.out, "tokenize") as scratch,
        working_directory(job.out, "tokenize") as staging,
    ):
        choice = choose_encoder(job.encoder, reference, job.tokenizer, scratch)
        surveys = _survey(job, files, scratch)
        groups = _merged(surveys)
        if not groups:
            raise DataError(f"no document with text in {len(files)} input files: {files[0]} ...")
        runs = [run for survey in surveys for run in survey.runs]
        encoder = guarded_encoder(reference, choice.name, job.tokenizer, scratch)
        sha256 = reference.identity.sha256
        planned = [
            task
            for group in sorted(groups)
            for task in plan_group(job, encoder, sha256, runs, group, groups[group])
        ]
        finished = finished_shards(job, planned, {language for language, _ in groups})
        keep_tokenizer(job.out, job.tokenizer, sha256)
        report = _write_skipped_report(job, surveys)
        state = SecondPass(
            runs=runs,
            files=[str(path) for path in files],
            tokenizer=job.tokenizer,
            encoder=choice.name,
            encoder_version=choice.version,
            cache=scratch,
            guard_share=job.guard_share,
            seed=job.seed,
            staging=staging,
        )
        written = _write_shards(job, state, [task for task in planned if task.prefix not in finished])
    return TokenizeResult(
        groups=_group_results(planned, {**finished, **written}),
        empty_documents=sum((survey.empty for survey in surveys), Counter()),
        malformed_lines=sum(survey.malformed_lines for survey in surveys),
        skipped_report=report,
        shards_already_done=len(finished),
        encoder=choice,
        documents_checked=sum(
            manifest.encoder.documents_checked for manifest in written.values() if manifest.encoder
        ),
    )


def _survey(job: TokenizeJob, files: list[Location], scratch: Path) -> list[Survey]:
    sizes = [DocumentFile(path, job.keys).size_bytes for path in files]
    tasks = _together(files, sizes)
    pool = WorkerPool(min(job.workers, len(tasks)), FirstPass(job, scratch))
    with ProgressLine("reading   ", pool.counters, sum(sizes)):
        surveys = list(pool.run(survey_files, tasks))
    return sorted(surveys, key=lambda survey: survey.first_file)


def _together(files: list[Location], sizes: list[int]) -> list[list[InputFile]]:
    """Small files in a row together: a run for each of a million files would be a million runs to read."""
    tasks: list[list[InputFile]] = []
    held = _TOGETHER_BYTES
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if held + size > _TOGETHER_BYTES:
            tasks.append([])
            held = 0
        tasks[-1].append((number, path))
        held += size
    return tasks


def _merged(surveys: list[Survey]) -> dict[Group, GroupCount]:
    groups: dict[Group, GroupCount] = {}
    for survey in surveys:
        for group, count in survey.groups.items():
            groups.setdefault(group, GroupCount()).merge(count)
    return groups


def _write_skipped_report(job: TokenizeJob, surveys: list[Survey]) -> Path | None:
    pieces = [survey.malformed for survey in surveys if survey.malformed is not None]
    if not pieces:
        return None
    report = job.out / f"skipped-lines.{job.keys.language or 'by-document'}.txt"
    with atomic_file(report) as stream:
        for piece in pieces:
            with open(piece, "rb") as part:
                shutil.copyfileobj(part, stream)
    return report


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


def _group_results(planned: list[ShardTask], shards: dict[Path, ShardManifest]) -> list[GroupResult]:
    results: dict[Group, GroupResult] = {}
    for task in planned:
        manifest = shards.get(task.prefix)
        if manifest is None:  # no document fell into its range
            continue
        result = results.setdefault(task.group, GroupResult(*task.group))
        result.documents += manifest.documents
        result.tokens += manifest.tokens
        result.utf8_bytes += manifest.utf8_bytes
        result.shards.append(task.prefix)
    return list(results.values())
