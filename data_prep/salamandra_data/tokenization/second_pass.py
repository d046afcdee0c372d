"""Second pass: gather the documents of one shard, encode them and write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from salamandra_data.indexed import ShardManifest, ShardWriter
from salamandra_data.tokenization.encoder import Encoder, cached_encoder
from salamandra_data.tokenization.sorted_runs import Group, RangeReader, Record, Run
from salamandra_data.tokenization.worker_pool import Counters

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: the documents of ``group`` with keys between consecutive ``key_bounds``.

    The bounds divide the shard into parts that are small enough to hold in memory, one at a time.
    ``text_bytes`` is its expected size, for the progress line.
    ``preparation`` identifies the result: the same value means the same bytes.
    """

    group: Group
    prefix: Path
    key_bounds: tuple[int, ...]
    text_bytes: int
    preparation: str


@dataclass(frozen=True)
class SecondPass:
    """What every worker of the second pass knows."""

    runs: list[Run]
    tokenizer: Path
    seed: int
    staging: Path


def write_shard(state: SecondPass, counters: Counters, task: ShardTask) -> tuple[Path, ShardManifest | None]:
    """Write one shard; its manifest is None, and nothing is written, if no document falls into its range.

    Raises:
        DataError: the disk is full or refuses; nothing is left under the shard's names.
    """
    encoder = cached_encoder(state.tokenizer)
    language, split = task.group
    writer = ShardWriter(
        task.prefix,
        language=language,
        split=split,
        tokenizer=encoder.identity,
        shuffle_seed=state.seed,
        preparation=task.preparation,
        staging=state.staging,
    )
    try:
        reader = RangeReader(state.runs, task.group, task.key_bounds)
        for part in range(len(task.key_bounds) - 1):
            for batch in _batches(reader.part(part)):
                _write_batch(writer, encoder, batch)
                text_bytes = sum(len(record.text) for record in batch)
                counters.add(len(batch), text_bytes, text_bytes)
    except BaseException:
        writer.abort()
        raise
    if writer.documents == 0:
        writer.abort()
        return task.prefix, None
    return task.prefix, writer.close()


def _batches(records: list[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_batch(writer: ShardWriter, encoder: Encoder, batch: list[Record]) -> None:
    eod = np.array([encoder.identity.eod_id], dtype=np.int32)
    rows = encoder.encode([record.text for record in batch])
    writer.add_documents(
        np.concatenate([part for row in rows for part in (row, eod)]),
        [len(row) + 1 for row in rows],
        utf8_bytes=sum(len(record.text) for record in batch),
        sources=Counter(record.source for record in batch if record.source is not None),
        licences=Counter(record.licence for record in batch if record.licence is not None),
    )
