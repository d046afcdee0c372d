"""Checking shards down to the last byte."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from megatron_salamandra.foundation.atomic_files import WriteError
from megatron_salamandra.foundation.own_sums import own_sum_holds
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards.indexed_shard import IndexedShard
from salamandra_data.shards.layout import bin_path, idx_path, manifest_path, token_dtype
from salamandra_data.shards.manifest import ShardManifest
from salamandra_data.shards.shard_files import TOKENIZER_FILE_NAME, missing_files, same_tokens
from salamandra_data.storage import Location, is_file, size_of
from salamandra_data.text_table import count_of

_READ_BYTES = 4 << 20
_BLOCK_TOKENS = 1 << 22
_NAMED = 5  # lost shards


@dataclass
class VerificationReport:
    """Shards and tokens looked at, and each problem found, naming file and what is wrong; notes are no problems."""

    shards: int = 0
    tokens: int = 0
    without_manifest: list[Location] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield from self.problems
        for prefix in self.without_manifest:
            yield f"{prefix}: no manifest, so only its structure was checked"
        yield from self.notes
        verdict = count_of(len(self.problems), "problem") if self.problems else "no problem"
        yield f"{count_of(self.shards, 'shard')}, {count_of(self.tokens, 'token')}: {verdict}"


def verify_shards(prefixes: Iterable[Location], report: VerificationReport, *, renew: bool = False) -> None:
    """Check each shard completely, and add what is found to ``report``; one damaged shard does not hide another.

    Args:
        renew: whether the manifests of intact local shards that have no checksum of themselves get one. One that
            cannot be written is a problem; those at URLs are named in the notes.
    """
    intact: list[tuple[Location, ShardManifest]] = []
    for prefix in prefixes:
        report.shards += 1
        if missing := missing_files(prefix):
            report.problems.append(
                f"{prefix}: incomplete: {' and '.join(path.name for path in missing)} missing"
            )
            continue
        for check in (_check_structure, _check_against_manifest):
            problem = _problem(check, prefix, report)
            if problem is not None:
                report.problems.append(problem)
                break
        else:
            if prefix not in report.without_manifest:
                manifest = ShardManifest.load(prefix)
                intact.append((prefix, manifest))
                if renew:
                    _renew(prefix, manifest, report)
    report.notes += [f"{one}: holds the same tokens as {other}" for one, other in same_tokens(intact)]


def _renew(prefix: Location, manifest: ShardManifest, report: VerificationReport) -> None:
    """Give a manifest the checksum of itself that it lacks."""
    path = manifest_path(prefix)
    try:
        if own_sum_holds(path.read_bytes()) is not None:
            return
        if isinstance(prefix, Path):
            manifest.save(prefix)
        else:
            report.notes.append(
                f"{path}: has no checksum of itself, and was not renewed: nothing is written to URLs\n"
                "  renew a local copy of the shard, and copy its manifest there"
            )
    except WriteError as error:
        report.problems.append(str(error))
    except OSError as error:
        report.problems.append(f"{path}: cannot be read: {error}")


def lost_shards(prefixes: Sequence[Location]) -> Iterator[str]:
    """Shards of which those in their directory say that they were made together with them, and which are not there."""
    there: dict[tuple[str, str, str, int], set[int]] = {}
    for prefix in prefixes:
        try:
            manifest = ShardManifest.load(prefix)
        except (DataError, OSError):  # the check of the shard itself says so
            continue
        if manifest.shard is not None and manifest.shards is not None:
            group = (str(prefix.parent), manifest.language, manifest.split, manifest.shards)
            there.setdefault(group, set()).add(manifest.shard)
    for (directory, language, split, shards), numbers in there.items():
        if (lost := shards - len(numbers)) > 0:
            named = islice((number for number in range(shards) if number not in numbers), _NAMED)
            names = ", ".join(f"{language}-{split}-{number:05d}" for number in named)
            yield (
                f"{directory}: {lost:,} of {shards:,} shards of {language!r}, {split}, are missing, or their "
                f"manifests: {names}{' ...' if lost > _NAMED else ''}"
            )


def _problem(
    check: Callable[[Location, VerificationReport], None], prefix: Location, report: VerificationReport
) -> str | None:
    try:
        check(prefix, report)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{prefix}: cannot be read: {error}"
    return None


def _check_structure(prefix: Location, report: VerificationReport) -> None:
    shard = IndexedShard.open(prefix)
    shard.check_structure()
    report.tokens += shard.tokens


def _check_against_manifest(prefix: Location, report: VerificationReport) -> None:
    if not is_file(manifest_path(prefix)):
        report.without_manifest.append(prefix)
        return
    manifest, shard = ShardManifest.load(prefix), IndexedShard.open(prefix)
    for key, found in (
        ("documents", shard.documents),
        ("tokens", shard.tokens),
        ("bin_bytes", size_of(bin_path(prefix))),
    ):
        if getattr(manifest, key) != found:
            raise DataError(
                f"{manifest_path(prefix)}: {key} = {getattr(manifest, key):,}, but the shard has {found:,}"
            )
    if shard.dtype != token_dtype(manifest.tokenizer.vocab_size):
        raise DataError(
            f"{idx_path(prefix)}: ids are {shard.dtype.name}, but a vocabulary of "
            f"{manifest.tokenizer.vocab_size:,} is written as {token_dtype(manifest.tokenizer.vocab_size).name}"
        )
    shard.check_index(manifest.idx_sha256)
    _check_chunks(prefix, manifest)
    _check_ids(prefix, shard, manifest)
    beside = prefix.with_name(TOKENIZER_FILE_NAME)
    if is_file(beside) and sha256_of_file(beside) != manifest.tokenizer.sha256:
        raise DataError(
            f"{beside}: is not the tokenizer that made {prefix.name} (SHA-256 differs from its manifest)"
        )


def _check_chunks(prefix: Location, manifest: ShardManifest) -> None:
    path = bin_path(prefix)
    with path.open("rb") as stream:
        for number, expected in enumerate(manifest.bin_sha256):
            digest = hashlib.sha256()
            remaining = manifest.chunk_bytes
            while remaining and (block := stream.read(min(_READ_BYTES, remaining))):
                digest.update(block)
                remaining -= len(block)
            if digest.hexdigest() != expected:
                first = number * manifest.chunk_bytes
                last = min(first + manifest.chunk_bytes, manifest.bin_bytes)
                raise DataError(f"{path}: bytes {first:,} to {last:,} do not have their checksum: damaged")
        if stream.read(1):
            raise DataError(f"{manifest_path(prefix)}: has checksums for the first part of {path.name} only")


def _check_ids(prefix: Location, shard: IndexedShard, manifest: ShardManifest) -> None:
    itemsize, done = shard.dtype.itemsize, 0  # sequences whose last id was looked at

    def end(sequence: int) -> int:
        return int(shard.starts[sequence]) // itemsize + int(shard.lengths[sequence])

    for first in range(0, shard.tokens, _BLOCK_TOKENS):
        ids = shard.read(first, min(_BLOCK_TOKENS, shard.tokens - first))
        bad = (ids < 0) | (ids >= manifest.tokenizer.vocab_size)
        if bad.any():
            place = int(bad.argmax())
            raise DataError(
                f"{bin_path(prefix)}: token {first + place:,} is id {int(ids[place])}, outside the vocabulary of "
                f"{manifest.tokenizer.vocab_size:,}"
            )
        last = bisect_right(range(shard.sequences), first + len(ids), lo=done, key=end)
        ends = shard.starts[done:last] // itemsize + shard.lengths[done:last]
        wrong = ids[ends - 1 - first] != manifest.tokenizer.eod_id
        if np.any(wrong):
            place = int(wrong.argmax())
            raise DataError(
                f"{bin_path(prefix)}: document {done + place:,} ends with id {int(ids[ends[place] - 1 - first])}, not "
                f"with the end-of-document id {manifest.tokenizer.eod_id}"
            )
        done = last
