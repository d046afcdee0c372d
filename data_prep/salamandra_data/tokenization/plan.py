"""Between the passes: which shards there will be, where they are cut, which are there already, and what all came to."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from megatron_salamandra.foundation.atomic_files import atomic_file
from salamandra_data.errors import DataError
from salamandra_data.languages import known_language
from salamandra_data.shards import (
    ShardManifest,
    bin_path,
    idx_path,
    is_whole,
    keep_tokenizer,
    manifest_path,
    publishing_path,
)
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import EncoderChoice, GuardedEncoder, TextBatch, guarded_encoder
from salamandra_data.tokenization.document_hash import KEY_RANGE, even_bounds
from salamandra_data.tokenization.encoder import cached_encoder
from salamandra_data.tokenization.first_pass import GroupCount, Survey
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.range_reader import first_documents
from salamandra_data.tokenization.result import GroupResult, TokenizeResult
from salamandra_data.tokenization.run_file import ByGroup, Group, Run

_PART_BYTES = 32 << 20
_LEAST_RANGE_BYTES = 8 << 20  # a worker that starts costs as much as encoding some megabytes
_SAMPLE_BYTES = 8 << 20  # of text is encoded to know how much of it makes a token
_MANY_DOCUMENTS = 10_000  # in a shard: then ranges of one width hold one share of the text, to a few percent
_PREPARATION = "salamandra-tokenize-5"
"""Changes when the same job would give other bytes."""

_MANIFEST_NAME = re.compile(r"(?P<language>.+)-(train|validation)-\d{5,}\.json")


@dataclass(frozen=True)
class PlannedShard:
    """One shard: the documents of ``group`` with keys from ``first_key`` up to ``last_key``, exclusive.

    It is number ``number`` of ``shards``, from 0. Its ``parts`` ranges of keys of one width are small enough to hold
    in memory, one at a time, and ``ranges`` of its keys are encoded apart from each other. ``text_bytes`` is its
    expected size. ``preparation`` identifies the result: the same value means the same ``.bin`` and ``.idx``.
    """

    group: Group
    number: int
    shards: int
    prefix: Path
    first_key: int
    last_key: int
    parts: int
    text_bytes: int
    preparation: str
    ranges: int = 1


@dataclass(frozen=True)
class ShardRange:
    """One range of the keys of a shard: number ``number`` of those it is cut into."""

    shard: PlannedShard
    number: int

    @property
    def bounds(self) -> tuple[int, ...]:
        """Rising keys between which are parts that fit in memory."""
        shard = self.shard
        first, last = even_bounds(shard.ranges, shard.first_key, shard.last_key)[
            self.number : self.number + 2
        ]
        parts = -(-shard.parts // shard.ranges)
        return even_bounds(min(parts, last - first), first, last)

    @property
    def text_bytes(self) -> int:
        """Expected size of its texts."""
        return self.shard.text_bytes // self.shard.ranges


@dataclass(frozen=True)
class Plan:
    """What the second pass does.

    Attributes:
        shards: all of the job, in order.
        runs: where the documents are.
        counts: what the first pass found.
        encoder: which encodes.
        finished: prefixes of shards that were there before.
        empty_documents: by language.
        malformed_lines: passed over; ``skipped_report`` lists them.
        renamed: the corpus language of each name that means one.
    """

    shards: list[PlannedShard]
    runs: list[Run]
    counts: ByGroup[GroupCount]
    encoder: EncoderChoice
    finished: list[Path]
    empty_documents: dict[str, int]
    malformed_lines: int
    skipped_report: Path | None
    renamed: dict[str, str]

    def open_ranges(self) -> list[ShardRange]:
        """What was to be encoded when the plan was made, shard after shard."""
        done = set(self.finished)
        return [
            ShardRange(shard, number)
            for shard in self.shards
            if shard.prefix not in done
            for number in range(shard.ranges)
        ]

    def result(self, manifests: Mapping[Path, ShardManifest]) -> TokenizeResult:
        """What the job came to, given the manifests of all shards that are there.

        Raises:
            DataError: the shards hold other documents than the first pass found.
        """
        groups = _group_results(self.shards, manifests)
        self._check_counts(groups)
        before = set(self.finished)
        return TokenizeResult(
            groups=groups,
            empty_documents=Counter(self.empty_documents),
            malformed_lines=self.malformed_lines,
            skipped_report=self.skipped_report,
            shards_already_done=sum(prefix in before for prefix in manifests),
            encoder=self.encoder,
            documents_checked=sum(
                manifest.encoder.documents_checked
                for prefix, manifest in manifests.items()
                if manifest.encoder and prefix not in before
            ),
            renamed=self.renamed,
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


def plan_shards(
    job: TokenizeJob,
    files: Sequence[Location],
    surveys: Sequence[Survey],
    choice: EncoderChoice,
    encoder_cache: Path,
    units_wanted: int,
) -> Plan:
    """Decide the shards of a job from what the first pass found, and write what goes beside them.

    Args:
        job: with ``tokenizer`` a file.
        files: its input files.
        surveys: of all files, in their order.
        choice: of :func:`choose_encoder`.
        encoder_cache: directory for the model in the encoder's own form, for all workers.
        units_wanted: shards are cut into ranges until there are about as many of these, so that no worker is idle.
    Raises:
        DataError: there is no text, or another tokenizer or shards of another job are in ``out``.
    """
    counts: dict[Group, GroupCount] = {}
    for survey in surveys:
        for group, count in survey.groups.items():
            counts.setdefault(group, GroupCount()).merge(count)
    if not counts:
        shown = f"{len(files)} input files: {files[0]} ..." if len(files) > 1 else str(files[0])
        raise DataError(f"no document with text in {shown}")
    runs = [run for survey in surveys for run in survey.runs]
    reference = cached_encoder(job.tokenizer)
    encoder = guarded_encoder(reference, choice.name, job.tokenizer, encoder_cache)
    sha256 = reference.identity.sha256
    shards = [
        shard
        for group in sorted(counts)
        for shard in _plan_group(job, encoder, sha256, runs, group, counts[group])
    ]
    finished = finished_shards(job, shards)
    keep_tokenizer(job.out, job.tokenizer, sha256)
    return Plan(
        shards=_with_ranges(shards, finished, units_wanted),
        runs=runs,
        counts=counts,
        encoder=choice,
        finished=list(finished),
        empty_documents=dict(sum((survey.empty for survey in surveys), Counter())),
        malformed_lines=sum(survey.malformed_lines for survey in surveys),
        skipped_report=_write_skipped_report(job, surveys),
        renamed=dict(sorted(item for survey in surveys for item in survey.renamed.items())),
    )


def _plan_group(
    job: TokenizeJob,
    encoder: GuardedEncoder,
    tokenizer_sha256: str,
    runs: list[Run],
    group: Group,
    count: GroupCount,
) -> Iterator[PlannedShard]:
    """Divide the keys of a group into as many shards as its tokens, by estimate, need; none of them is empty.

    What identifies a shard, its ``preparation``, does not name the encoder: all give the same ids.
    """
    wanted = -(-_estimated_tokens(job, encoder, runs, group, count) // job.shard_tokens)
    bounds = shard_bounds(runs, group, wanted)
    shards = len(bounds) - 1
    language, split = group
    for number, (first, last) in enumerate(pairwise(bounds)):
        identity = f"{_PREPARATION} {language} {split} {count.digest} {tokenizer_sha256} {job.seed} {number}/{shards}"
        yield PlannedShard(
            group=group,
            number=number,
            shards=shards,
            prefix=job.out / f"{language}-{split}-{number:05d}",
            first_key=first,
            last_key=last,
            parts=max(1, -(-count.utf8_bytes // (shards * _PART_BYTES))),
            text_bytes=count.utf8_bytes // shards,
            preparation=hashlib.sha256(identity.encode()).hexdigest(),
        )


def _estimated_tokens(
    job: TokenizeJob, encoder: GuardedEncoder, runs: list[Run], group: Group, count: GroupCount
) -> int:
    """Tokens of a group: its size where that must fit one shard, else by encoding documents at the front."""
    most = count.utf8_bytes + 2 * count.documents
    if most <= job.shard_tokens:
        return most
    tokens = text_bytes = 0
    for documents in first_documents(runs, group, count.utf8_bytes, _SAMPLE_BYTES):
        unchecked = np.zeros(len(documents.texts), dtype=bool)
        rows = encoder.encode(TextBatch(documents.texts, documents.fast, unchecked, place=str))
        tokens += rows.ids.size + rows.lengths.size
        text_bytes += sum(map(len, documents.texts))
    return max(1, round(count.utf8_bytes * tokens / text_bytes))


def shard_bounds(runs: Sequence[Run], group: Group, shards: int) -> tuple[int, ...]:
    """Rising keys from 0 to ``2**64``: between each two are the documents of one shard, at least one.

    Few documents are cut by their sizes, so that shards differ by no more than a document, and there are fewer of
    them than ``shards`` if there are too few documents. Memory is 160 kB for each shard.

    Args:
        runs: all runs.
        group: language and split.
        shards: how many are wanted.
    """
    mine = [run for run in runs if group in run.groups]
    documents = sum(run.groups[group].last - run.groups[group].first for run in mine)
    if documents >= _MANY_DOCUMENTS * shards:
        return even_bounds(shards)
    keys, sizes = (np.concatenate(arrays) for arrays in zip(*(run.sizes(group) for run in mine), strict=True))
    order = np.argsort(keys, kind="stable")
    keys, ends = keys[order], np.cumsum(sizes[order].astype(np.int64))
    wanted = np.arange(1, shards) * (int(ends[-1]) / shards)
    after = np.searchsorted(ends, wanted)
    before = ends[after] - sizes[order][after].astype(np.int64)
    first = np.where(wanted - before < ends[after] - wanted, after, after + 1)  # the nearer end of a document
    starts = np.unique(keys[first[first < keys.size]])
    return (0, *starts[starts > keys[0]].tolist(), KEY_RANGE)


def _with_ranges(
    shards: list[PlannedShard], finished: Mapping[Path, ShardManifest], units_wanted: int
) -> list[PlannedShard]:
    """The shards, cut into ranges where there are too few of them for all workers.

    Ranges are joined in order, which costs a copy of the ids; so none is smaller than ``_LEAST_RANGE_BYTES``.
    """
    open_bytes = sum(shard.text_bytes for shard in shards if shard.prefix not in finished)
    if len(shards) - len(finished) >= units_wanted:
        return shards
    range_bytes = max(_LEAST_RANGE_BYTES, -(-open_bytes // units_wanted))
    return [replace(shard, ranges=max(1, round(shard.text_bytes / range_bytes))) for shard in shards]


def finished_shards(job: TokenizeJob, planned: Sequence[PlannedShard]) -> dict[Path, ShardManifest]:
    """Shards in ``out`` that this very job made before; not those that lost a file or a part of one since.

    Raises:
        DataError: shards of these languages are there from another job, or from another tool.
    """
    for shard in planned:
        _refuse_foreign(shard.prefix)
    expected = {shard.prefix: shard.preparation for shard in planned}
    languages = {shard.group[0] for shard in planned}
    finished: dict[Path, ShardManifest] = {}
    for path in sorted(job.out.iterdir()):
        name = _MANIFEST_NAME.fullmatch(path.name)
        if name and known_language(name["language"]) in languages:
            prefix = path.with_suffix("")
            manifest = ShardManifest.load(prefix)
            if expected.get(prefix) != manifest.preparation:
                raise DataError(
                    f"{manifest_path(prefix)}: this directory holds shards of {manifest.language!r} made from other "
                    "input or with other options\n  choose another --out (a blend takes several directories), or "
                    "remove the old shards"
                )
            if is_whole(prefix):
                finished[prefix] = manifest
    return finished


def _refuse_foreign(prefix: Path) -> None:
    """Refuse to overwrite a shard without a manifest, unless a run that was killed left it."""
    for path in (bin_path(prefix), idx_path(prefix)):
        # In this order: another task of this run may be giving the hidden manifest its name.
        if path.exists() and not publishing_path(prefix).exists() and not manifest_path(prefix).exists():
            raise DataError(
                f"{path}: is here without a manifest, so another tool made it, or its manifest was lost\n"
                "  it would be overwritten: move it away, or choose another --out"
            )


def _write_skipped_report(job: TokenizeJob, surveys: Sequence[Survey]) -> Path | None:
    pieces = [survey.malformed for survey in surveys if survey.malformed is not None]
    if not pieces:
        return None
    # Not .txt, which is a document where --out is inside --input.
    report = job.out / f"skipped-lines.{job.documents.language or 'by-document'}.log"
    with atomic_file(report) as stream:
        for piece in pieces:
            with open(piece, "rb") as part:
                shutil.copyfileobj(part, stream)
    return report


def _group_results(
    planned: Sequence[PlannedShard], manifests: Mapping[Path, ShardManifest]
) -> list[GroupResult]:
    results: dict[Group, GroupResult] = {}
    for shard in planned:
        manifest = manifests.get(shard.prefix)
        if manifest is None:  # damaged since, which the counts will tell
            continue
        result = results.setdefault(shard.group, GroupResult(*shard.group))
        result.documents += manifest.documents
        result.tokens += manifest.tokens
        result.utf8_bytes += manifest.utf8_bytes
        result.shards.append(shard.prefix)
    return list(results.values())
