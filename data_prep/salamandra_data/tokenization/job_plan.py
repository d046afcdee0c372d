"""Between the passes: what is to be written, what is there already, and what a run came to."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_salamandra.foundation.atomic_files import atomic_file
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentFile
from salamandra_data.shards import ShardManifest, keep_tokenizer
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import EncoderChoice, guarded_encoder
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import MOST_RUNS, GroupCount, InputFile, Survey
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.result import GroupResult, TokenizeResult
from salamandra_data.tokenization.run_file import Group
from salamandra_data.tokenization.second_pass import SecondPass, ShardTask
from salamandra_data.tokenization.shard_plan import finished_shards, plan_group

_TOGETHER_BYTES = 16 << 20


@dataclass(frozen=True)
class JobPlan:
    """What the second pass does.

    Attributes:
        shards: all of the job, in order.
        counts: what the first pass found.
        state: what its workers know.
        encoder: which encodes.
        empty_documents: by language.
        malformed_lines: passed over; ``skipped_report`` lists them.
        renamed: the corpus language of each name that means one.
    """

    shards: list[ShardTask]
    counts: dict[Group, GroupCount]
    state: SecondPass
    encoder: EncoderChoice
    empty_documents: Counter[str]
    malformed_lines: int
    skipped_report: Path | None
    renamed: dict[str, str]

    def finished(self, job: TokenizeJob) -> dict[Path, ShardManifest]:
        """Shards of this very job that are there.

        Raises:
            DataError: shards of these languages are there from another job.
        """
        return finished_shards(job, self.shards, {task.group[0] for task in self.shards})

    def result(
        self, made: Mapping[Path, ShardManifest], kept: Mapping[Path, ShardManifest]
    ) -> TokenizeResult:
        """What the run came to, given the shards it made and those that were there.

        Raises:
            DataError: the shards hold other documents than the first pass found.
        """
        groups = _group_results(self.shards, {**kept, **made})
        self._check_counts(groups)
        return TokenizeResult(
            groups=groups,
            empty_documents=self.empty_documents,
            malformed_lines=self.malformed_lines,
            skipped_report=self.skipped_report,
            shards_already_done=len(kept),
            encoder=self.encoder,
            renamed=self.renamed,
            documents_checked=sum(
                manifest.encoder.documents_checked for manifest in made.values() if manifest.encoder
            ),
        )

    def _check_counts(self, results: Sequence[GroupResult]) -> None:
        found = {(result.language, result.split): result for result in results}
        for group, count in sorted(self.counts.items(), key=lambda item: item[0]):
            result = found.get(group, GroupResult(*group))
            if (result.documents, result.utf8_bytes) != (count.documents, count.utf8_bytes):
                name = "-".join(group)
                raise DataError(
                    f"{name}: {count.documents:,} documents of {count.utf8_bytes:,} bytes were read, but the shards "
                    f"hold {result.documents:,} of {result.utf8_bytes:,}\n"
                    "  the intermediate copy of the text was damaged: check the disk of --scratch, remove the shards "
                    f"{name}-* and run the command again"
                )


def survey_tasks(job: TokenizeJob, files: Sequence[Location]) -> tuple[list[list[InputFile]], int]:
    """The tasks of the first pass, each some input files, and the size of all files in bytes.

    Small files in a row are one task: a run for each of a million files would be a million runs to read. So tasks are
    twice ``MOST_RUNS`` at most, but for files that are larger than their share.
    """
    sizes = [DocumentFile(path, job.keys).size_bytes for path in files]
    total = sum(sizes)
    together = max(_TOGETHER_BYTES, total // MOST_RUNS)
    tasks: list[list[InputFile]] = []
    held = 0
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if not tasks or held + size > together:
            tasks.append([])
            held = 0
        tasks[-1].append(InputFile(number, path, size / max(total, 1)))
        held += size
    return tasks, total


def plan_shards(
    job: TokenizeJob,
    files: Sequence[Location],
    surveys: Sequence[Survey],
    choice: EncoderChoice,
    cache: Path,
    staging: Path,
) -> JobPlan:
    """Decide the shards of a job from what the first pass found, and write what goes beside them.

    Args:
        job: with ``tokenizer`` a file.
        files: its input files, in the order in which the first pass numbered them.
        surveys: of all files, in their order.
        choice: of :func:`choose_encoder`.
        cache: directory for the model in the encoder's own form, for all workers.
        staging: directory for unfinished shards.
    Raises:
        DataError: there is no text, or another tokenizer is in ``out``.
    """
    groups = _merged(surveys)
    if not groups:
        raise DataError(f"no document with text in {len(files)} input files: {files[0]} ...")
    runs = [run for survey in surveys for run in survey.runs]
    reference = cached_encoder(job.tokenizer)
    encoder = guarded_encoder(reference, choice.name, job.tokenizer, cache)
    sha256 = reference.identity.sha256
    shards = [
        task
        for group in sorted(groups)
        for task in plan_group(job, encoder, sha256, runs, group, groups[group])
    ]
    finished_shards(job, shards, {language for language, _ in groups})
    keep_tokenizer(job.out, job.tokenizer, sha256)
    return JobPlan(
        shards=shards,
        counts=groups,
        state=SecondPass(
            runs=runs,
            files=[str(path) for path in files],
            tokenizer=job.tokenizer,
            encoder=choice.name,
            encoder_version=choice.version,
            cache=cache,
            guard_share=job.guard_share,
            seed=job.seed,
            staging=staging,
        ),
        encoder=choice,
        empty_documents=sum((survey.empty for survey in surveys), Counter()),
        malformed_lines=sum(survey.malformed_lines for survey in surveys),
        skipped_report=_write_skipped_report(job, surveys),
        renamed=dict(sorted(item for survey in surveys for item in survey.renamed.items())),
    )


def _merged(surveys: Sequence[Survey]) -> dict[Group, GroupCount]:
    groups: dict[Group, GroupCount] = {}
    for survey in surveys:
        for group, count in survey.groups.items():
            groups.setdefault(group, GroupCount()).merge(count)
    return groups


def _write_skipped_report(job: TokenizeJob, surveys: Sequence[Survey]) -> Path | None:
    pieces = [survey.malformed for survey in surveys if survey.malformed is not None]
    if not pieces:
        return None
    # Not .txt, which is a document where --out is inside --input.
    report = job.out / f"skipped-lines.{job.keys.language or 'by-document'}.log"
    with atomic_file(report) as stream:
        for piece in pieces:
            with open(piece, "rb") as part:
                shutil.copyfileobj(part, stream)
    return report


def _group_results(planned: list[ShardTask], shards: dict[Path, ShardManifest]) -> list[GroupResult]:
    results: dict[Group, GroupResult] = {}
    for task in planned:
        manifest = shards.get(task.prefix)
        if manifest is None:  # damaged since, which the counts will tell
            continue
        result = results.setdefault(task.group, GroupResult(*task.group))
        result.documents += manifest.documents
        result.tokens += manifest.tokens
        result.utf8_bytes += manifest.utf8_bytes
        result.shards.append(task.prefix)
    return list(results.values())
