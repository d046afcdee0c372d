"""Second pass: gather the documents of one shard, encode them and write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from salamandra_data.execution.worker_pool import Counters
from salamandra_data.shards import EncoderRecord, ShardManifest, ShardWriter
from salamandra_data.tokenization.backends import GuardedEncoder, TextBatch, guarded_encoder
from salamandra_data.tokenization.document_hash import is_chosen
from salamandra_data.tokenization.encoder import SENTENCEPIECE_VERSION, cached_encoder
from salamandra_data.tokenization.range_reader import Documents, RangeReader
from salamandra_data.tokenization.run_file import Group, Run, names_of

_BATCH_BYTES = 1 << 20
_ALWAYS_CHECKED = 8  # documents at the front of each shard, so that none goes unguarded


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: the documents of ``group`` with keys between consecutive ``key_bounds``.

    It is number ``number`` of ``shards``, from 0. The bounds divide it into parts that are small enough to hold in
    memory, one at a time.
    ``text_bytes`` is its expected size, for the progress line.
    ``preparation`` identifies the result: the same value means the same ``.bin`` and ``.idx``.
    """

    group: Group
    number: int
    shards: int
    prefix: Path
    key_bounds: tuple[int, ...]
    text_bytes: int
    preparation: str


@dataclass(frozen=True)
class SecondPass:
    """What every worker of the second pass knows.

    Attributes:
        runs: where the documents are.
        files: names of the input files.
        tokenizer: SentencePiece model file.
        encoder: name of the encoder; ``encoder_version`` its version.
        cache: directory for the model in the encoder's own form.
        guard_share: of documents that SentencePiece encodes as well.
        seed: of the order.
        staging: directory for unfinished shards.
    """

    runs: list[Run]
    files: list[str]
    tokenizer: Path
    encoder: str
    encoder_version: str
    cache: Path
    guard_share: float
    seed: int
    staging: Path


def write_shard(state: SecondPass, counters: Counters, task: ShardTask) -> tuple[Path, ShardManifest]:
    """Write one shard.

    Raises:
        DataError: the disk is full or refuses, the intermediate copy is damaged, or the encoder is wrong; nothing is
            left under the shard's names.
    """
    reference = cached_encoder(state.tokenizer)
    encoder = guarded_encoder(reference, state.encoder, state.tokenizer, state.cache)
    language, split = task.group
    writer = ShardWriter(
        task.prefix,
        language=language,
        split=split,
        tokenizer=reference.identity,
        shard=task.number,
        shards=task.shards,
        shuffle_seed=state.seed,
        preparation=task.preparation,
        staging=state.staging,
    )
    try:
        with RangeReader(state.runs, task.group, task.key_bounds) as reader:
            for part in range(len(task.key_bounds) - 1):
                documents = reader.part(part)
                for batch in _batches(documents):
                    _write_batch(state, writer, encoder, documents, batch)
                    text_bytes = sum(map(len, documents.texts[batch]))
                    counters.add(batch.stop - batch.start, text_bytes, text_bytes)
    except BaseException:
        writer.abort()
        raise
    record = EncoderRecord(
        name=state.encoder,
        version=state.encoder_version,
        sentencepiece_version=SENTENCEPIECE_VERSION,
        guard_share=state.guard_share,
        documents_checked=encoder.documents_checked,
        documents_by_sentencepiece=encoder.documents_by_reference,
    )
    return task.prefix, writer.close(record)


def _batches(documents: Documents) -> Iterator[slice]:
    """Slices of documents of about ``_BATCH_BYTES``, at least one document each."""
    first = size = 0
    for number, text in enumerate(documents.texts, start=1):
        size += len(text)
        if size >= _BATCH_BYTES:
            yield slice(first, number)
            first, size = number, 0
    if first < len(documents.texts):
        yield slice(first, len(documents.texts))


def _write_batch(
    state: SecondPass,
    writer: ShardWriter,
    encoder: GuardedEncoder,
    documents: Documents,
    batch: slice,
) -> None:
    files, lines = documents.files[batch], documents.lines[batch]
    checked = is_chosen(documents.keys[batch], state.guard_share)
    checked[: max(0, _ALWAYS_CHECKED - writer.documents)] = True
    texts = documents.texts[batch]
    rows = encoder.encode(
        TextBatch(
            texts,
            documents.fast[batch],
            checked,
            place=lambda number: f"{state.files[files[number]]}:{lines[number]}",
        )
    ).with_last(cached_encoder(state.tokenizer).identity.eod_id)
    sources: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    for label, count in Counter(documents.labels[batch]).items():
        source, licence = names_of(label)
        if source is not None:
            sources[source] += count
        if licence is not None:
            licences[licence] += count
    writer.add_documents(
        rows.ids,
        rows.lengths,
        utf8_bytes=sum(map(len, texts)),
        sources=sources,
        licences=licences,
    )
