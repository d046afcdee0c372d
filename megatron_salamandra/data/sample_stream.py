"""Sample k of a run, computed from k: no index arrays, nothing built at start-up.

1. *Which source*: :class:`SourceTree` over the sources' exact weights, in order of name. It gives the
   source and the sample's ordinal in it; ``start_ordinals`` (the end of an earlier phase) is added to it.
2. *Which window*: a source has ``W = (tokens - 1) // sequence_length`` windows over all its shards end to end.
   Window w holds tokens ``w * L .. w * L + L``, both included: L inputs and, one further, L labels. Ordinal j
   is in epoch ``j // W`` and takes that epoch's window ``permutation(j % W)`` (:class:`WindowPermutation`).

Windows run over document and shard boundaries; attention and loss do too, as in the published recipe. The
at most L tokens behind the last whole window are not seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.data.block_checks import BlockChecks
from megatron_salamandra.data.ledger import SourceLedger
from megatron_salamandra.data.open_shards import OPEN_SHARDS_LIMIT, OpenShards
from megatron_salamandra.data.shard_reader import ShardSpan, SourceReader
from megatron_salamandra.data.source_tree import SourceTree
from megatron_salamandra.data.window_permutation import ORDER_FORMAT, WindowPermutation
from salamandra_data.blend_plan import TEXT, BlendPlan, BlendSource
from salamandra_data.errors import DataError
from salamandra_data.storage import RemotePath

STREAM_FORMAT = f"salamandra-stream/{ORDER_FORMAT}"


@dataclass(frozen=True)
class SampleLocation:
    """Where a sample's tokens come from.

    Attributes:
        sample: number in the run, from 0.
        source: name of the source.
        language: of the source.
        ordinal: number among the source's samples, earlier phases included.
        epoch: pass over the source, from 0.
        window: number of the window in the source.
        spans: the tokens, shard by shard; more than one where the window crosses into the next shard.
    """

    sample: int
    source: str
    language: str
    ordinal: int
    epoch: int
    window: int
    spans: tuple[ShardSpan, ...]


class SampleStream:
    """The run's samples, in an order that depends on the plan, the sequence length and the seed alone.

    The order does not depend on the parallel layout, the batch sizes or the length of the run.

    Args:
        plan: the blend; sources of weight 0 are left out. The order of sources in it does not matter.
        sequence_length: L, in tokens.
        seed: of the order of windows.
        start_ordinals: name of a source -> ordinal of its first sample, where a phase continues another one (see
            :func:`megatron_salamandra.data.ledger.final_ordinals`). Sources not named start at 0; named
            ones that the plan does not have are ignored, because a phase may drop a source.
        open_shards_limit: how many shards are kept open at most.
        checks: of the shards that are read; nothing is checked when not given.

    Attributes:
        sources: their names, in order.
        languages: of the sources, in the same order.
        remote: whether any shard is behind a URL.

    Raises:
        DataError: no source has a weight, a source has fewer tokens than one window or holds something else than
            text, or a start ordinal is negative.

    Safe to read from several threads. Start-up is O(shards); no shard is opened before it is read.
    """

    def __init__(
        self,
        plan: BlendPlan,
        sequence_length: int,
        seed: int,
        start_ordinals: Mapping[str, int] | None = None,
        *,
        open_shards_limit: int = OPEN_SHARDS_LIMIT,
        checks: BlockChecks | None = None,
    ) -> None:
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1; got {sequence_length}")
        sources = sorted((source for source in plan.sources if source.weight > 0), key=_name)
        if not sources:
            raise DataError("the blend plan has no source of factor above 0, so there is nothing to train on")
        for source in sources:
            if source.kind != TEXT:
                raise DataError(
                    f"source {source.name} is of kind {source.kind}; training reads {TEXT}\n"
                    f"  leave it out (factor 0 for {source.name}), or name it as {TEXT} in the blend"
                )
        self.sequence_length = sequence_length
        self.seed = seed
        self._sources = sources
        open_shards = OpenShards(open_shards_limit, checks)
        self._readers = [SourceReader(source.shards, open_shards) for source in sources]
        self._windows = [
            _window_count(source, reader.tokens, sequence_length)
            for source, reader in zip(sources, self._readers, strict=True)
        ]
        self._tree = SourceTree([source.weight for source in sources])
        self.sources = tuple(source.name for source in sources)
        self.languages = tuple(source.language for source in sources)
        self.remote = any(isinstance(shard.path, RemotePath) for source in sources for shard in source.shards)
        self._start_ordinals = _checked_ordinals(start_ordinals or {}, self.sources)
        # The last epoch's permutation of each source; rebuilding one costs a hash.
        self._permutations = [
            (0, WindowPermutation(windows, seed=seed, epoch=0, source=source))
            for windows, source in zip(self._windows, self.sources, strict=True)
        ]

    def locate(self, sample: int) -> SampleLocation:
        """Return where sample number ``sample`` (from 0) comes from, without reading it."""
        source, ordinal, epoch, window = self._window_of(sample)
        length = self.sequence_length
        return SampleLocation(
            sample=sample,
            source=self.sources[source],
            language=self.languages[source],
            ordinal=ordinal,
            epoch=epoch,
            window=window,
            spans=tuple(self._readers[source].spans(window * length, length + 1)),
        )

    def sample(self, sample: int) -> NDArray[np.int64]:
        """Return the tokens of sample number ``sample`` (from 0), [sequence_length + 1] int64.

        Raises:
            DataError: a shard is missing, damaged or not the one the plan counted; names its path.
        """
        source, _, _, window = self._window_of(sample)
        return self._readers[source].read(window * self.sequence_length, self.sequence_length + 1)

    def ledger(self, consumed_samples: int, skipped: Sequence[range] = ()) -> list[SourceLedger]:
        """Return what samples ``0 .. consumed_samples - 1`` have drawn from each source, by language. O(S).

        Args:
            skipped: samples among them that were passed over. They count for the place that a source has reached, but
                not for what was drawn from it.
        """
        passed_over = [0] * len(self._sources)
        for samples in skipped:
            ends = zip(self._tree.counts(samples.start), self._tree.counts(samples.stop), strict=True)
            passed_over = [
                before + stop - start for before, (start, stop) in zip(passed_over, ends, strict=True)
            ]
        return [
            SourceLedger(
                source=source,
                language=language,
                samples=reached - passed,
                tokens=(reached - passed) * self.sequence_length,
                next_ordinal=start + reached,
                windows=windows,
            )
            for source, language, reached, passed, start, windows in zip(
                self.sources,
                self.languages,
                self._tree.counts(consumed_samples),
                passed_over,
                self._start_ordinals,
                self._windows,
                strict=True,
            )
        ]

    def fingerprint(self) -> str:
        """Return a hex digest of all that decides the samples, and of nothing else.

        That is the order's format, seed, sequence length and, for each source, ratio of weights, start
        ordinal and checksums of its training shards; no path, and no validation shard. Kept in checkpoints:
        a run resumes only on the stream it was started with.
        """
        identity = {
            "format": STREAM_FORMAT,
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "sources": [
                {
                    "language": source.language,
                    **({} if source.name == source.language else {"name": source.name}),
                    "weight": weight,
                    "start_ordinal": start,
                    "shards": [[shard.tokens, shard.idx_sha256, shard.bin_digest] for shard in source.shards],
                }
                for source, weight, start in zip(
                    self._sources, self._tree.weights, self._start_ordinals, strict=True
                )
            ],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def _window_of(self, sample: int) -> tuple[int, int, int, int]:
        """Return (source, ordinal, epoch, window)."""
        source, ordinal = self._tree.locate(sample)
        ordinal += self._start_ordinals[source]
        epoch, place = divmod(ordinal, self._windows[source])
        cached_epoch, permutation = self._permutations[source]
        if cached_epoch != epoch:
            permutation = WindowPermutation(
                self._windows[source], seed=self.seed, epoch=epoch, source=self.sources[source]
            )
            self._permutations[source] = (epoch, permutation)
        return source, ordinal, epoch, permutation(place)


def _name(source: BlendSource) -> str:
    return source.name


def _window_count(source: BlendSource, tokens: int, sequence_length: int) -> int:
    windows = (tokens - 1) // sequence_length
    if windows < 1:
        raise DataError(
            f"{source.noun} {source.name} has {tokens} tokens, fewer than one window of {sequence_length} + 1\n"
            f"  leave it out (factor 0 for {source.name}), add text, or lower data.sequence_length"
        )
    return windows


def _checked_ordinals(start_ordinals: Mapping[str, int], sources: tuple[str, ...]) -> tuple[int, ...]:
    for source, ordinal in start_ordinals.items():
        if ordinal < 0:
            raise DataError(f"start ordinal of {source} is {ordinal}; ordinals start at 0")
    return tuple(start_ordinals.get(source, 0) for source in sources)
