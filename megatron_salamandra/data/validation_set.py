"""The held-out text of one language, as micro-batches every data-parallel rank can run in step.

Window w of the set predicts tokens ``w * L + 1 .. w * L + L`` from the ones before, L being the sequence length.
Windows are taken in order, so all predictions of the held-out text are covered once; the last window is padded
and its padding masked. Documents were shuffled when the shards were made, so the first windows are a fair sample
where ``max_samples`` cuts the set short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from megatron_salamandra.data.block_checks import BlockChecks
from megatron_salamandra.data.documents import DocumentRules
from megatron_salamandra.data.micro_batch import MicroBatch, micro_batch
from megatron_salamandra.data.open_shards import OPEN_VALIDATION_SHARDS_LIMIT, OpenShards
from megatron_salamandra.data.shard_reader import SourceReader
from salamandra_data.blend_plan import BlendPlan, BlendSource
from salamandra_data.errors import DataError

_PADDING_ID = 0  # any id of the vocabulary: padding is behind all that counts, and masked


class ValidationSet:
    """One source's validation windows.

    Args:
        source: whose ``validation_shards`` are read.
        sequence_length: L, in tokens.
        max_samples: at most this many windows; all when None.
        open_shards: shared cap on open files; an own one when None.

    Attributes:
        source: its name.
        language: of the source.
        samples: number of windows.
        predictions: number of predicted tokens in them: the sum of all loss masks over all ranks.
        utf8_bytes_per_token: of the whole held-out text of this language.

    Raises:
        DataError: the validation shards hold fewer than two tokens or no text, so there is nothing to predict.
    """

    def __init__(
        self,
        source: BlendSource,
        sequence_length: int,
        max_samples: int | None = None,
        open_shards: OpenShards | None = None,
    ) -> None:
        if sequence_length < 1 or (max_samples is not None and max_samples < 1):
            raise ValueError(
                f"sequence_length = {sequence_length} and max_samples = {max_samples} must be at least 1"
            )
        shards = source.validation_shards
        if open_shards is None:
            open_shards = OpenShards(OPEN_VALIDATION_SHARDS_LIMIT)
        self._reader = SourceReader(shards, open_shards)
        tokens = self._reader.tokens
        utf8_bytes = sum(shard.utf8_bytes for shard in shards)
        if tokens < 2 or utf8_bytes == 0:
            raise DataError(
                f"{source.noun} {source.name} has {tokens} validation tokens of {utf8_bytes} bytes of text; "
                "at least 2 tokens and some text are needed\n"
                "  tokenize with a larger --validation-fraction, or drop its validation shards from the blend"
            )
        self.source = source.name
        self.language = source.language
        self.sequence_length = sequence_length
        windows = -(-(tokens - 1) // sequence_length)
        self.samples = windows if max_samples is None else min(windows, max_samples)
        self.predictions = min(tokens - 1, self.samples * sequence_length)
        self.utf8_bytes_per_token = utf8_bytes / tokens

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Return bits per UTF-8 byte of text for a mean loss over this set's predictions.

        Comparable between languages, scripts and tokenizers, which a loss per token is not. The bytes are
        those of the whole held-out text scaled to the predicted tokens; EOD counts as a token of 0 bytes.
        Over a complete set the only approximation is the first token, which is never predicted; where
        ``max_samples`` cuts the set, bytes per token of the rest are taken for those of the part.
        """
        return nats_per_token / (self.utf8_bytes_per_token * math.log(2))

    def micro_batches(
        self,
        micro_batch_size: int,
        data_parallel_rank: int,
        data_parallel_size: int,
        documents: DocumentRules | None = None,
    ) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches; every rank gets the same number, padded with masked rows.

        Micro-batch m of rank r holds windows ``(m * R + r) * B + i``, as in training, so those of a micro-batch
        follow one another and are one read. All have the same shape.

        Raises:
            DataError: a shard could not be read; names its path.
        """
        length = self.sequence_length
        stride = micro_batch_size * data_parallel_size
        for first in range(0, self.samples, stride):
            start = (first + data_parallel_rank * micro_batch_size) * length
            row_starts = start + length * np.arange(micro_batch_size)
            predictions = np.clip(self.predictions - row_starts, 0, length)
            tokens = np.full(micro_batch_size * length + 1, _PADDING_ID, dtype=np.int64)
            if (known := int(predictions.sum())) > 0:
                tokens[: known + 1] = self._reader.read(start, known + 1)
            # Neighbours share a token: the last label of one is the first input of the next.
            windows = sliding_window_view(tokens, length + 1)[::length].copy()
            yield micro_batch(windows, predictions, documents)


def validation_sets(
    plan: BlendPlan,
    sequence_length: int,
    max_samples: int | None = None,
    checks: BlockChecks | None = None,
) -> list[ValidationSet]:
    """Return a set for each source of the plan that has held-out text, in order of name.

    Sources whose held-out documents are fewer than two tokens, or all empty, are left out. All sets share one
    cap on open files, and ``checks`` of what they read.
    """
    open_shards = OpenShards(OPEN_VALIDATION_SHARDS_LIMIT, checks)
    return [
        ValidationSet(source, sequence_length, max_samples, open_shards)
        for source in sorted(plan.sources, key=lambda source: source.name)
        if source.validation_tokens >= 2 and any(shard.utf8_bytes for shard in source.validation_shards)
    ]
