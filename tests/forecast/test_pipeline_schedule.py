"""The simulated pipeline: its order is Megatron-Core's, and its time is the one of the closed formulas."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.forecast.schedule import Pass, Timing, pipeline_passes, pipeline_seconds


def makespan(passes: list[Pass]) -> float:
    return max(one.end for one in passes)


@given(ranks=st.integers(2, 6), rounds=st.integers(1, 4), chunks=st.integers(1, 4))
def test_equal_stages_take_the_time_of_the_formula(ranks: int, rounds: int, chunks: int) -> None:
    """Narayanan et al. 2021: (m + (p - 1) / v) passes of a rank's whole load."""
    timing = Timing([1.0] * ranks * chunks, [2.0] * ranks * chunks)
    passes = pipeline_passes(timing, ranks, ranks * rounds)
    assert makespan(passes) == pytest.approx(3 * (ranks * rounds * chunks + ranks - 1))


@given(
    ranks=st.integers(2, 4),
    rounds=st.integers(1, 3),
    chunks=st.integers(1, 3),
    data=st.data(),
)
def test_passes_follow_their_inputs_and_never_share_a_rank(
    ranks: int, rounds: int, chunks: int, data: st.DataObject
) -> None:
    seconds = st.floats(0.1, 3.0)
    stages = ranks * chunks
    forward = data.draw(st.lists(seconds, min_size=stages, max_size=stages))
    backward = data.draw(st.lists(seconds, min_size=stages, max_size=stages))
    message = data.draw(st.floats(0.0, 1.0))
    passes = pipeline_passes(Timing(forward, backward, message), ranks, ranks * rounds)
    place = {(one.forward, one.chunk * ranks + one.rank, one.micro_batch): one for one in passes}
    assert len(place) == len(passes) == 2 * stages * ranks * rounds
    by_rank = defaultdict(list)
    for (is_forward, stage, micro_batch), one in place.items():
        by_rank[one.rank].append(one)
        assert one.end - one.start == pytest.approx((forward if is_forward else backward)[stage])
        if is_forward and stage:
            assert one.start >= place[True, stage - 1, micro_batch].end + message - 1e-9
        if not is_forward and stage < stages - 1:
            assert one.start >= place[False, stage + 1, micro_batch].end + message - 1e-9
        if not is_forward:
            assert one.start >= place[True, stage, micro_batch].end - 1e-9
    for own in by_rank.values():
        own.sort(key=lambda one: one.start)
        assert all(later.start >= earlier.end - 1e-9 for earlier, later in itertools.pairwise(own))


def test_the_first_rank_holds_as_many_micro_batches_as_the_memory_estimate_says() -> None:
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.planning.memory import chunks_in_flight

    for virtual in (1, 2, 3):
        config = load_run_config(
            "salamandra-40b", ["parallel.pipeline=4", f"parallel.virtual_pipeline={virtual}"]
        )
        layout = config.validate_for_world(16)
        passes = pipeline_passes(Timing([1.0] * 4 * virtual, [2.0] * 4 * virtual), 4, 16)
        for rank in range(4):
            held = most = 0
            for one in (one for one in passes if one.rank == rank):
                held += 1 if one.forward else -1
                most = max(most, held)
            assert most == chunks_in_flight(layout, rank)


@given(ranks=st.integers(2, 4), chunks=st.integers(1, 3), slow=st.floats(1.0, 4.0))
def test_long_steps_are_continued_from_their_steady_state(ranks: int, chunks: int, slow: float) -> None:
    timing = Timing([1.0] * (ranks * chunks - 1) + [slow], [2.0] * (ranks * chunks - 1) + [2 * slow], 0.1)
    whole = makespan(pipeline_passes(timing, ranks, 9 * ranks))
    assert pipeline_seconds(timing, ranks, 9 * ranks) == pytest.approx(whole, rel=0.01)


def test_interleaving_needs_whole_rounds() -> None:
    with pytest.raises(ValueError, match="6 micro-batches are no multiple of 4 interleaved ranks"):
        pipeline_passes(Timing([1.0] * 8, [1.0] * 8), 4, 6)
