"""What a step of a run was trained on: its samples, and the documents in their windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_salamandra.config import RunConfig, load_run_config
from megatron_salamandra.data.blend_changes import compare_blends
from megatron_salamandra.data.phase_start import PhaseStart
from megatron_salamandra.data.run_stream import RunStream
from megatron_salamandra.data.sample_stream import SampleLocation
from megatron_salamandra.data.shard_reader import ShardSpan
from megatron_salamandra.run_directory import CheckpointError, RunDirectory, latest_checkpoint, read_state
from megatron_salamandra.timeline import Timeline, trained_steps
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError
from salamandra_data.shards import IndexedShard
from salamandra_data.storage import Location


@dataclass(frozen=True)
class DocumentPart:
    """Consecutive tokens of one document.

    Attributes:
        shard: prefix or URL of the shard.
        document: number in the shard, from 0.
        first_token: of the document, from 0.
        tokens: how many.
        document_tokens: of the whole document, its end-of-document id included.
    """

    shard: Location
    document: int
    first_token: int
    tokens: int
    document_tokens: int


@dataclass(frozen=True)
class SampleContents:
    """Where a sample came from, and the documents it was made of, in order."""

    location: SampleLocation
    documents: tuple[DocumentPart, ...]

    def to_dict(self, sample: int) -> dict[str, Any]:
        """As JSON, for sample ``sample`` of its stream."""
        place = self.location
        return {
            "sample": sample,
            "source": place.source,
            "language": place.language,
            "epoch": place.epoch,
            "window": place.window,
            "ordinal": place.ordinal,
            "documents": [
                {
                    "shard": str(part.shard),
                    "document": part.document,
                    "first_token": part.first_token,
                    "tokens": part.tokens,
                }
                for part in self.documents
            ],
        }


class RunRecord:
    """The order of samples of a run, from what its directory says.

    Args:
        run_dir: of the run, with ``config.yaml``, ``blend.lock.yaml`` and, if the run goes on from another one,
            ``ordinals.lock.yaml``.
        blend: the blend plan where the data is now, if it was moved since; it must be of the same content.
        timeline: which samples each step takes; None means as the newest checkpoint says.

    Raises:
        DataError: a file is missing, or ``blend`` is another blend.
        ConfigError: ``config.yaml`` cannot be read.
    """

    def __init__(self, run_dir: Path, blend: Path | None = None, *, timeline: Timeline | None = None) -> None:
        directory = RunDirectory(run_dir)
        settings, lock = directory.config, directory.blend_lock
        for path in (settings, lock):
            if not path.is_file():
                raise DataError(
                    f"{path}: missing, so {run_dir} is not the directory of a run that was started"
                )
        self.config: RunConfig = load_run_config(str(settings))
        self.plans = [
            BlendPlan.parse(directory.phase_blend_lock(number, name))
            for number, name in enumerate(self.config.phase_names)
            if directory.phase_blend_lock(number, name).is_file()
        ]
        if blend is not None:
            moved = BlendPlan.parse(blend)
            same = [not compare_blends(plan, moved).of_samples for plan in self.plans]
            if not any(same):
                raise DataError(f"{blend}: is not the blend of this run, which {lock} records")
            self.plans = [moved if equal else plan for plan, equal in zip(self.plans, same, strict=True)]
        start: dict[str, int] = {}
        if self.config.data.continue_from is not None:
            start = PhaseStart.load(run_dir).start_ordinals
        trained = None if timeline else _trained_steps(run_dir)
        self.timeline = timeline or self.config.timeline
        if trained:
            self.timeline = self.timeline.going_on_from(trained)
        self.stream = RunStream(self.config, self.plans, self.timeline, start)
        self._shards: dict[Location, IndexedShard] = {}

    def step_samples(self, step: int) -> range:
        """Numbers of the samples that step ``step``, counted from 1 as in ``metrics.jsonl``, was trained on.

        Raises:
            DataError: the run has no such step.
        """
        if not 1 <= step <= self.timeline.total_steps:
            raise DataError(f"--step {step}: the run has steps 1 to {self.timeline.total_steps:,}")
        phase = self.timeline.phase(step)
        if phase >= len(self.plans):
            raise DataError(
                f"--step {step}: belongs to the phase {self.config.phase_names[phase]}, which has not begun"
            )
        return self.timeline.step_samples(step)

    def contents(self, step: int, sample: int) -> SampleContents:
        """The documents of one sample of step ``step``. Reads indexes only.

        Raises:
            DataError: a shard is missing or is not the one the blend counted.
        """
        location = self.stream.at(step).stream.locate(sample)
        parts = [part for span in location.spans for part in self._documents(span)]
        return SampleContents(location, tuple(parts))

    def ids(self, part: DocumentPart, most: int) -> NDArray[np.int32]:
        """The first ids of a part, at most ``most``, int32."""
        shard = self._shard(part.shard)
        start = shard.document_start(part.document) + part.first_token
        return shard.read(start, min(most, part.tokens)).astype(np.int32)

    def _documents(self, span: ShardSpan) -> Iterator[DocumentPart]:
        shard = self._shard(span.path)
        position, end = span.start_token, span.start_token + span.tokens
        number = shard.document_at(position)
        while position < end:
            start, document_end = shard.document_start(number), shard.document_start(number + 1)
            if document_end > position:  # a document of other tools may be empty
                taken = min(end, document_end) - position
                yield DocumentPart(span.path, number, position - start, taken, document_end - start)
                position += taken
            number += 1

    def _shard(self, prefix: Location) -> IndexedShard:
        if prefix not in self._shards:
            shard = IndexedShard.open(prefix)
            expected = next(
                reference
                for plan in self.plans
                for source in plan.sources
                for reference in source.shards
                if reference.path == prefix
            )
            if shard.tokens != expected.tokens:
                raise DataError(
                    f"{prefix}: holds {shard.tokens:,} tokens, but the run's blend counted {expected.tokens:,}: the "
                    "shard was rewritten since\n  restore it, or name a blend plan of the same content with --blend"
                )
            shard.check_index(expected.idx_sha256)
            self._shards[prefix] = shard
        return self._shards[prefix]


def _trained_steps(run_dir: Path) -> Timeline | None:
    """What the latest complete checkpoint says was trained on; what was passed over is recorded there alone."""
    checkpoint = latest_checkpoint(RunDirectory(run_dir).checkpoints)
    if checkpoint is None:
        return None
    try:
        return trained_steps(read_state(checkpoint).values)
    except (CheckpointError, KeyError, ValueError) as error:
        raise DataError(f"{checkpoint}: it cannot be read which samples were trained on: {error}") from error
