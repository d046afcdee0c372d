"""Second pass: gather the documents of a range of a shard, encode them and write them; join what was cut."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from salamandra_data.execution import Counters
from salamandra_data.shards import EncodedDocuments, EncoderRecord, ShardManifest, ShardWriter
from salamandra_data.tokenization.backends import GuardedEncoder, TextBatch, guarded_encoder
from salamandra_data.tokenization.document_hash import is_chosen
from salamandra_data.tokenization.encoder import SENTENCEPIECE_VERSION, cached_encoder
from salamandra_data.tokenization.job import TokenizeJob
from salamandra_data.tokenization.job_directory import JobDirectory
from salamandra_data.tokenization.plan import Plan, PlannedShard, ShardRange
from salamandra_data.tokenization.range_reader import Documents, RangeReader
from salamandra_data.tokenization.run_file import damaged_error, names_of, scratch_error
from salamandra_data.working_directory import working_directory

_BATCH_BYTES = 1 << 20
_JOINED_TOKENS = 1 << 20
_ALWAYS_CHECKED = 8  # documents at the front of each shard, so that none goes unguarded


@dataclass(frozen=True)
class SecondPass:
    """What every worker of the second pass knows: the job, its plan, its directory and the names of its input files."""

    job: TokenizeJob
    plan: Plan
    directory: JobDirectory
    files: Sequence[str]

    def encode(self, counters: Counters, range_: ShardRange) -> None:
        """Encode one range of a shard: into the shard where it is all of it, else into files of its own.

        Raises:
            DataError: the disk is full or refuses, the intermediate copy is damaged, or the encoder is wrong; nothing
                is left under the shard's names.
        """
        encoder = self._encoder()
        if range_.shard.ranges == 1:
            with working_directory(self.job.out, "tokenize") as staging:
                writer = self._writer(range_.shard, staging)
                try:
                    self._encode(counters, encoder, range_, writer)
                except BaseException:
                    writer.abort()
                    raise
                writer.close(self._record(encoder.documents_checked, encoder.documents_by_reference))
            return
        with EncodedRangeWriter(self.directory, range_) as encoded:
            self._encode(counters, encoder, range_, encoded)
            encoded.finish(encoder)

    def is_encoded(self, range_: ShardRange) -> bool:
        """Whether the files of a range are there."""
        return self.directory.has(_name(range_))

    def join(self, counters: Counters, shard: PlannedShard) -> ShardManifest:
        """Make a shard of its encoded ranges, in their order, and remove these.

        Raises:
            DataError: the disk is full or refuses, or an encoded range is damaged.
        """
        ranges = [ShardRange(shard, number) for number in range(shard.ranges)]
        checked = by_reference = 0
        with working_directory(self.job.out, "tokenize") as staging:
            writer = self._writer(shard, staging)
            try:
                for range_ in ranges:
                    encoded = self.directory.load(_name(range_), EncodedRange)
                    encoded.copy_into(writer, _ids_file(self.directory, range_))
                    counters.add(encoded.documents, encoded.utf8_bytes, range_.text_bytes)
                    checked += encoded.documents_checked
                    by_reference += encoded.documents_by_reference
            except BaseException:
                writer.abort()
                raise
            manifest = writer.close(self._record(checked, by_reference))
        for range_ in ranges:
            _ids_file(self.directory, range_).unlink(missing_ok=True)
        return manifest

    def _encode(
        self, counters: Counters, encoder: GuardedEncoder, range_: ShardRange, output: _Output
    ) -> None:
        shard = range_.shard
        with RangeReader(self.plan.runs, shard.group, range_.bounds) as reader:
            before = reader.documents_between(shard.first_key, range_.bounds[0])
            for part in range(len(range_.bounds) - 1):
                documents = reader.part(part)
                for batch in _batches(documents):
                    self._encode_batch(encoder, documents, batch, before, output)
                    before += batch.stop - batch.start
                    text_bytes = sum(map(len, documents.texts[batch]))
                    counters.add(batch.stop - batch.start, text_bytes, text_bytes)

    def _encode_batch(
        self, encoder: GuardedEncoder, documents: Documents, batch: slice, before: int, output: _Output
    ) -> None:
        """Encode some documents, before which there are ``before`` in the shard."""
        files, lines = documents.files[batch], documents.lines[batch]
        checked = is_chosen(documents.keys[batch], self.job.guard_share)
        checked[: max(0, _ALWAYS_CHECKED - before)] = True
        texts = documents.texts[batch]
        rows = encoder.encode(
            TextBatch(
                texts,
                documents.fast[batch],
                checked,
                place=lambda number: f"{self.files[files[number]]}:{lines[number]}",
            )
        ).with_last(cached_encoder(self.job.tokenizer).identity.eod_id)
        sources: Counter[str] = Counter()
        licences: Counter[str] = Counter()
        for label, count in Counter(documents.labels[batch]).items():
            source, licence = names_of(label)
            if source is not None:
                sources[source] += count
            if licence is not None:
                licences[licence] += count
        output.add_documents(
            EncodedDocuments(rows.ids, rows.lengths, sum(map(len, texts)), sources, licences)
        )

    def _encoder(self) -> GuardedEncoder:
        reference = cached_encoder(self.job.tokenizer)
        return guarded_encoder(reference, self.plan.encoder.name, self.job.tokenizer, self.directory.encoder)

    def _writer(self, shard: PlannedShard, staging: Path) -> ShardWriter:
        language, split = shard.group
        return ShardWriter(
            shard.prefix,
            language=language,
            split=split,
            tokenizer=cached_encoder(self.job.tokenizer).identity,
            shard=shard.number,
            shards=shard.shards,
            shuffle_seed=self.job.seed,
            preparation=shard.preparation,
            staging=staging,
        )

    def _record(self, documents_checked: int, documents_by_sentencepiece: int) -> EncoderRecord:
        return EncoderRecord(
            name=self.plan.encoder.name,
            version=self.plan.encoder.version,
            sentencepiece_version=SENTENCEPIECE_VERSION,
            guard_share=self.job.guard_share,
            documents_checked=documents_checked,
            documents_by_sentencepiece=documents_by_sentencepiece,
        )


class _Output(Protocol):
    """What takes encoded documents: a shard, or the files of a range."""

    def add_documents(self, documents: EncodedDocuments) -> None:
        """Append documents, to be checked as by :meth:`ShardWriter.add_documents`."""


@dataclass(frozen=True)
class EncodedRange:
    """What the file of ids of an encoded range holds: int32 ids, then the int32 lengths of the documents."""

    documents: int
    tokens: int
    utf8_bytes: int
    sources: dict[str, int]
    licences: dict[str, int]
    documents_checked: int
    documents_by_reference: int

    def copy_into(self, writer: ShardWriter, file: Path) -> None:
        """Append its documents to a shard, about ``_JOINED_TOKENS`` at a time."""
        if not self.documents:
            return
        try:
            lengths = np.fromfile(file, dtype=np.int32, count=self.documents, offset=4 * self.tokens)
            ends = np.cumsum(lengths, dtype=np.int64)
            if ends.size != self.documents or int(ends[-1]) != self.tokens:
                raise damaged_error(file, "its lengths are not those that were written")
            first = 0
            while first < self.documents:
                start = int(ends[first - 1]) if first else 0
                last = max(first + 1, int(np.searchsorted(ends, start + _JOINED_TOKENS, side="right")))
                ids = np.fromfile(file, dtype=np.int32, count=int(ends[last - 1]) - start, offset=4 * start)
                is_last = last == self.documents
                documents = EncodedDocuments(ids, lengths[first:last].astype(np.int64))
                if is_last:
                    documents = replace(
                        documents, utf8_bytes=self.utf8_bytes, sources=self.sources, licences=self.licences
                    )
                writer.add_documents(documents)
                first = last
        except OSError as error:
            raise damaged_error(file, error.strerror or str(error)) from error


class EncodedRangeWriter:
    """Writes the files of an encoded range; a context manager that closes them.

    Memory is 4 bytes per document, and the names of their sources.

    Raises:
        DataError: the disk is full or refuses.
    """

    def __init__(self, directory: JobDirectory, range_: ShardRange) -> None:
        self._directory, self._range = directory, range_
        self._path = _ids_file(directory, range_)
        self._lengths = array("i")
        self._tokens = self._utf8_bytes = 0
        self._sources: Counter[str] = Counter()
        self._licences: Counter[str] = Counter()
        try:
            self._stream = open(self._path, "wb")  # noqa: SIM115 - closed on leaving the block
        except OSError as error:
            raise scratch_error(self._path, error) from error

    def __enter__(self) -> EncodedRangeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError as refused:
            if kind is None:
                raise scratch_error(self._path, refused) from refused

    def add_documents(self, documents: EncodedDocuments) -> None:
        """Append documents, whose ids :meth:`ShardWriter.add_documents` checks when ranges are joined."""
        ids = documents.ids
        try:
            self._stream.write(np.ascontiguousarray(ids, dtype=np.int32).data.cast("B"))
        except OSError as error:
            raise scratch_error(self._path, error) from error
        self._lengths.frombytes(documents.lengths.astype(np.int32).tobytes())
        self._tokens += ids.size
        self._utf8_bytes += documents.utf8_bytes
        self._sources.update(documents.sources)
        self._licences.update(documents.licences)

    def finish(self, encoder: GuardedEncoder) -> None:
        """Note that the range is complete, once all its documents are there.

        Args:
            encoder: has counted what it checked of this range.
        """
        try:
            self._stream.write(memoryview(self._lengths).cast("B"))
            self._stream.flush()
        except OSError as error:
            raise scratch_error(self._path, error) from error
        self._directory.save(
            _name(self._range),
            EncodedRange(
                documents=len(self._lengths),
                tokens=self._tokens,
                utf8_bytes=self._utf8_bytes,
                sources=dict(self._sources),
                licences=dict(self._licences),
                documents_checked=encoder.documents_checked,
                documents_by_reference=encoder.documents_by_reference,
            ),
        )


def _name(range_: ShardRange) -> str:
    """Of what was found about an encoded range; it says how the shard was cut, which depends on the workers."""
    return f"{range_.shard.prefix.name}.{range_.number:04d}-of-{range_.shard.ranges:04d}"


def _ids_file(directory: JobDirectory, range_: ShardRange) -> Path:
    return directory.ranges / _name(range_)


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
