"""Which shards a run writes, where they are cut, and which of them are done."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from salamandra_data.errors import DataError
from salamandra_data.languages import known_language
from salamandra_data.shards import ShardManifest, bin_path, idx_path, is_whole, manifest_path, publishing_path
from salamandra_data.tokenization.backends import GuardedEncoder, TextBatch
from salamandra_data.tokenization.document_hash import even_bounds
from salamandra_data.tokenization.first_pass import GroupCount
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.range_reader import first_documents
from salamandra_data.tokenization.run_file import Group, Run
from salamandra_data.tokenization.second_pass import ShardTask
from salamandra_data.tokenization.shard_bounds import shard_bounds

_PART_BYTES = 32 << 20
_SAMPLE_BYTES = 8 << 20  # of text is encoded to know how much of it makes a token
PREPARATION = "salamandra-tokenize-5"
"""Changes when the same job would give other bytes, or leave its intermediate work in another form."""

_MANIFEST_NAME = re.compile(r"(?P<language>.+)-(train|validation)-\d{5,}\.json")


def plan_group(
    job: TokenizeJob,
    encoder: GuardedEncoder,
    tokenizer_sha256: str,
    runs: list[Run],
    group: Group,
    count: GroupCount,
) -> list[ShardTask]:
    """Divide the keys of a group into as many shards as its tokens, by estimate, need; none of them is empty.

    What identifies a shard, its ``preparation``, does not name the encoder: all give the same ids.
    """
    wanted = -(-_estimated_tokens(job, encoder, runs, group, count) // job.shard_tokens)
    bounds = shard_bounds(runs, group, wanted)
    shards = len(bounds) - 1
    parts = max(1, -(-count.utf8_bytes // (shards * _PART_BYTES)))
    language, split = group
    tasks: list[ShardTask] = []
    for number, (first, last) in enumerate(pairwise(bounds)):
        identity = (
            f"{PREPARATION} {language} {split} {count.digest} {tokenizer_sha256} {job.seed} {number}/{shards}"
        )
        tasks.append(
            ShardTask(
                group=group,
                number=number,
                shards=shards,
                prefix=job.out / f"{language}-{split}-{number:05d}",
                key_bounds=even_bounds(min(parts, last - first), first, last),
                text_bytes=count.utf8_bytes // shards,
                preparation=hashlib.sha256(identity.encode()).hexdigest(),
            )
        )
    return tasks


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


def finished_shards(
    job: TokenizeJob, planned: list[ShardTask], languages: set[str]
) -> dict[Path, ShardManifest]:
    """Shards in ``out`` that this very job made before; not those that lost a file or a part of one since.

    Raises:
        DataError: shards of these languages are there from another job, or from another tool.
    """
    for task in planned:
        _refuse_foreign(task.prefix)
    expected = {task.prefix: task.preparation for task in planned}
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
