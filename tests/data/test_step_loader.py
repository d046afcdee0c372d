from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from megatron_salamandra.data import MicroBatch, SampleStream, StepLoader, step_loader
from megatron_salamandra.timeline import Timeline
from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from conftest import ShardPlace

LENGTH = 8
GLOBAL_BATCH = 24
TIMELINE = Timeline.of_one_phase("main", steps=50, batch_size=GLOBAL_BATCH, sequence_length=LENGTH)
PATIENCE_SECONDS = 30.0  # how long a broken loader may keep a test waiting


@pytest.fixture
def stream(wide_shard_place: ShardPlace) -> SampleStream:
    plan = wide_shard_place.plan({"ca": [[40, 3, 70], [50]], "en": [[300]]}, {"ca": 2, "en": "0.5"})
    return SampleStream(plan, LENGTH, seed=4)


def loader(stream: SampleStream, micro: int = 2, rank: int = 0, ranks: int = 1, **options: int) -> StepLoader:
    return StepLoader(
        stream,
        timeline=TIMELINE,
        micro_batch_size=micro,
        data_parallel_rank=rank,
        data_parallel_size=ranks,
        **options,
    )


def inputs_and_last_label(batch: MicroBatch) -> torch.Tensor:
    return torch.cat([batch.tokens, batch.labels[:, -1:]], dim=1)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_global_batches_are_equal_under_any_layout(stream: SampleStream, micro: int, ranks: int) -> None:
    loaders = [loader(stream, micro, rank, ranks) for rank in range(ranks)]
    for step in range(3):
        steps = [each.next_step() for each in loaders]
        # Micro-batch by micro-batch over the ranks is the order of the stream.
        rows = torch.cat(
            [inputs_and_last_label(batch) for together in zip(*steps, strict=True) for batch in together]
        )
        expected = [stream.sample(k) for k in range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)]
        np.testing.assert_array_equal(rows.numpy(), np.stack(expected))
    for each in loaders:
        each.close()


@pytest.mark.parametrize("prefetch_steps", [1, 2, 5])
def test_resuming_at_any_step_gives_the_same_batches(stream: SampleStream, prefetch_steps: int) -> None:
    with loader(stream, prefetch_steps=prefetch_steps) as straight:
        whole = [straight.next_step() for _ in range(7)]
    for first_step in range(7):
        with loader(stream, first_step=first_step, prefetch_steps=prefetch_steps) as resumed:
            for step in range(first_step, 7):
                assert resumed.steps_done == step
                for ours, theirs in zip(resumed.next_step(), whole[step], strict=True):
                    assert torch.equal(inputs_and_last_label(ours), inputs_and_last_label(theirs))


def test_micro_batches_hold_each_token_once(stream: SampleStream) -> None:
    with loader(stream, micro=3) as steps:
        batches = steps.next_step() + steps.next_step()
        assert steps.wait_seconds >= 0
    assert len(batches) == 16
    storages = {}
    for batch in batches:
        assert batch.tokens.dtype == batch.labels.dtype == batch.position_ids.dtype == torch.int64
        assert batch.loss_mask.dtype == torch.float32
        assert torch.equal(batch.labels[:, :-1], batch.tokens[:, 1:])
        assert torch.equal(batch.loss_mask, torch.ones(3, LENGTH))  # EOD and what follows it counts too
        assert torch.equal(batch.position_ids, torch.arange(LENGTH).repeat(3, 1))
        for tensor in (batch.tokens, batch.labels, batch.loss_mask, batch.position_ids):
            assert tensor.shape == (3, LENGTH)
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    windows = 2 * GLOBAL_BATCH * (LENGTH + 1) * 8
    constants = 3 * LENGTH * (4 + 8)
    assert sum(storages.values()) == windows + constants


class _WatchedStream(SampleStream):
    """Notes what is read, breaks at one sample, and stands still at another until it is released."""

    fails_at = hangs_at = 10**9

    @classmethod
    def watching(cls, stream: SampleStream) -> _WatchedStream:
        stream.__class__ = cls
        assert isinstance(stream, cls)
        stream.read = []
        stream.hanging, stream.released = threading.Event(), threading.Event()
        return stream

    def sample(self, sample: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        self.read.append(sample)
        if sample >= self.fails_at:
            raise DataError("shards/ca-train-00003.bin: gone")
        if sample >= self.hangs_at:
            self.hanging.set()
            self.released.wait(PATIENCE_SECONDS)
        return super().sample(sample)


@pytest.mark.parametrize("prefetch_steps", [1, 3])
def test_an_error_while_reading_ahead_reaches_the_trainer_at_its_step(
    stream: SampleStream, prefetch_steps: int
) -> None:
    _WatchedStream.watching(stream).fails_at = 2 * GLOBAL_BATCH + 5
    with loader(stream, prefetch_steps=prefetch_steps) as steps:
        assert len(steps.next_step()) == len(steps.next_step()) == 12
        for _ in range(2):
            with pytest.raises(DataError, match=r"ca-train-00003\.bin: gone"):
                steps.next_step()


def test_a_missing_shard_is_named_to_the_trainer(wide_shard_place: ShardPlace) -> None:
    plan = wide_shard_place.plan({"ca": [[200]]})
    path = Path(f"{plan.sources[0].shards[0].path}.bin")
    path.unlink()
    with (
        loader(SampleStream(plan, LENGTH, seed=4)) as steps,
        pytest.raises(DataError, match=path.name),
    ):
        steps.next_step()


@pytest.mark.parametrize("prefetch_steps", [1, 3])
def test_reading_ahead_is_bounded(
    stream: SampleStream, monkeypatch: pytest.MonkeyPatch, prefetch_steps: int
) -> None:
    stalled = threading.Event()

    class Condition(threading.Condition):
        def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
            if threading.current_thread().name == "step-loader" and not predicate():
                stalled.set()
            return super().wait_for(predicate, timeout)

    monkeypatch.setattr(threading, "Condition", Condition)
    watched = _WatchedStream.watching(stream)
    watched.fails_at = 10 * GLOBAL_BATCH  # so that an unbounded loader ends
    with loader(stream, prefetch_steps=prefetch_steps) as steps:
        for handed_out in range(3):
            assert stalled.wait(PATIENCE_SECONDS)
            assert watched.read == list(range((handed_out + prefetch_steps) * GLOBAL_BATCH))
            stalled.clear()
            steps.next_step()


def test_close_stops_the_thread_and_refuses_further_steps(stream: SampleStream) -> None:
    before = threading.active_count()
    steps = loader(stream, prefetch_steps=2)
    steps.next_step()
    steps.close()
    steps.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        steps.next_step()


def test_closing_waits_for_the_sample_being_read_and_not_for_its_step(stream: SampleStream) -> None:
    watched = _WatchedStream.watching(stream)
    watched.hangs_at = 0
    steps = loader(stream)
    assert watched.hanging.wait(PATIENCE_SECONDS)
    closing = threading.Thread(target=steps.close)
    closing.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not steps._closed and time.monotonic() < deadline:
        time.sleep(0.001)
    watched.released.set()
    closing.join()
    steps._thread.join()
    assert watched.read == [0]


def test_a_read_that_hangs_is_left_behind_with_a_warning(
    stream: SampleStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_loader, "CLOSE_SECONDS", 0.01)
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    watched = _WatchedStream.watching(stream)
    watched.hangs_at = 5
    logger = logging.getLogger("salamandra")
    logger.addHandler(handler)
    try:
        with loader(stream) as steps:
            assert watched.hanging.wait(PATIENCE_SECONDS)
    finally:
        logger.removeHandler(handler)
    assert warnings == ["reading ahead was still waiting for storage after 0.01 s and is left behind"]
    assert steps._thread.daemon  # so that it does not keep the process either
    watched.released.set()
    steps._thread.join(PATIENCE_SECONDS)
    assert not steps._thread.is_alive()
    assert watched.read == [0, 1, 2, 3, 4, 5]


def test_impossible_batches_are_refused(stream: SampleStream) -> None:
    with pytest.raises(ValueError, match=r"24 is not a multiple of .* = 5 \* 1"):
        loader(stream, micro=5)
    with pytest.raises(ValueError, match=r"data_parallel_rank = 2 is outside \[0, 2\)"):
        loader(stream, rank=2, ranks=2)
    with pytest.raises(ValueError, match="at least 1"):
        loader(stream, micro=0)
    with pytest.raises(ValueError, match="prefetch_steps=0"):
        loader(stream, prefetch_steps=0)
    with pytest.raises(ValueError, match="the run has steps 1 to 50; asked for step 0"):
        loader(stream, first_step=-1)


def test_skipped_samples_are_passed_over_and_the_phase_ends(stream: SampleStream) -> None:
    timeline = Timeline.of_one_phase("main", steps=3, batch_size=4, sequence_length=LENGTH)
    steps = StepLoader(
        stream,
        timeline=timeline.passing_over(1, 5),
        micro_batch_size=4,
        data_parallel_rank=0,
        data_parallel_size=1,
    )
    with steps:
        rows = [inputs_and_last_label(steps.next_step()[0]) for _ in range(3)]
        with pytest.raises(ValueError, match="step 3 is the last one of its phase"):
            steps.next_step()
    expected = [stream.sample(k) for k in (0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15, 16)]
    np.testing.assert_array_equal(torch.cat(rows).numpy(), np.stack(expected))
