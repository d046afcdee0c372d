"""From the results of nodes to verdicts: properties that hold for any results, and each rule once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.node_check import Check, Grade, NodeResult, State, choose, judge

HOSTS = ("a", "b", "c", "d", "e")


def node(host: str, rate: float = 100.0, *checks: Check, **facts: str) -> NodeResult:
    speed = Check("matmul", State.OK, "", {"matmul_tflops": (rate,)}, facts)
    return NodeResult(host, (speed, *checks))


def failed(name: str = "gpu_state", message: str = "broken") -> Check:
    return Check(name, State.FAILED, message)


checks = st.builds(
    Check,
    st.sampled_from(["gpu_state", "run_dir", "clock", "network"]),
    st.sampled_from(list(State)),
    st.sampled_from(["x", "a\nb"]),
    st.dictionaries(
        st.sampled_from(["matmul_tflops", "copy_gb_per_s", "device_memory_gib"]),
        st.lists(st.floats(0, 1e6), max_size=4).map(tuple),
    ),
    st.dictionaries(st.sampled_from(["torch", "python"]), st.sampled_from(["1", "2"])),
)
results = st.lists(
    st.builds(NodeResult, st.sampled_from([*HOSTS, "stranger"]), st.lists(checks, max_size=4).map(tuple)),
    max_size=6,
    unique_by=lambda result: result.host,
)


@given(results, st.permutations(HOSTS), st.integers(1, 5))
def test_every_host_gets_one_verdict_and_no_bad_one_trains(
    found: list[NodeResult], hosts: list[str], needed: int
) -> None:
    verdicts = judge(found, hosts)
    assert list(verdicts) == hosts
    choice = choose(verdicts, needed)
    assert len(choice.hosts) in (0, needed)
    assert {verdicts[host].grade for host in choice.hosts} <= {Grade.GOOD, Grade.SLOW}
    usable = [host for host in hosts if verdicts[host].grade in (Grade.GOOD, Grade.SLOW)]
    assert bool(choice.hosts) is (len(usable) >= needed)
    if choice.kept_slow:  # only where no good node is left over
        assert {host for host in hosts if verdicts[host].grade is Grade.GOOD} <= set(choice.hosts)
    assert all(verdict.reasons for verdict in choice.left_out)


@given(results, st.permutations(HOSTS))
def test_the_order_of_results_and_hosts_does_not_matter(found: list[NodeResult], hosts: list[str]) -> None:
    assert judge(found, hosts) == judge(found[::-1], HOSTS)


@given(results)
def test_not_all_of_those_that_answer_are_broken_by_what_they_share(found: list[NodeResult]) -> None:
    shared = [replace(result, checks=(*result.checks, failed("driver"))) for result in found]
    before, after = judge(found, HOSTS), judge(shared, HOSTS)
    if len([result for result in found if result.host in HOSTS]) > 1:
        assert {host: verdict.grade for host, verdict in before.items()} == {
            host: verdict.grade for host, verdict in after.items()
        }


@given(results)
def test_results_come_back_as_they_were_written(found: list[NodeResult]) -> None:
    assert [NodeResult.from_dict(result.to_dict()) for result in found] == found


@pytest.mark.parametrize("junk", [{}, {"host": "a", "checks": 3}, {"host": "a", "checks": [{"name": "x"}]}])
def test_what_is_no_result_is_refused(junk: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not the result|not a check"):
        NodeResult.from_dict(junk)


def test_a_node_below_the_share_of_the_median_is_slow_and_says_by_how_much() -> None:
    verdicts = judge([node("a"), node("b", 84), node("c", 86), node("d"), node("e")], HOSTS)
    grades = [verdict.grade for verdict in verdicts.values()]
    assert grades == [Grade.GOOD, Grade.SLOW, Grade.GOOD, Grade.GOOD, Grade.GOOD]
    assert verdicts["b"].text().startswith("b slow: matmul_tflops is 84, 0.84 of the median")


def test_the_slowest_device_decides_and_is_named() -> None:
    rates = Check("matmul", State.OK, "", {"matmul_tflops": (100.0, 100.0, 60.0, 100.0)})
    verdicts = judge([NodeResult("a", (rates,)), node("b"), node("c")], HOSTS[:3])
    assert "device 2 is 60" in verdicts["a"].text()


def test_a_silent_node_is_named_and_all_silent_ones_are_nobodys_fault() -> None:
    assert judge([node("a"), node("b")], HOSTS[:3])["c"].grade is Grade.SILENT
    assert {verdict.grade for verdict in judge([], HOSTS).values()} == {Grade.GOOD}


def test_a_failure_is_excused_where_all_have_it_and_told() -> None:
    verdicts = judge(
        [node("a", 100, failed("run_dir", "full")), node("b", 100, failed("run_dir", "full"))], "ab"
    )
    assert {verdict.grade for verdict in verdicts.values()} == {Grade.GOOD}
    assert verdicts["a"].warnings == ("run_dir: full",)
    one = judge([node("a", 100, failed("run_dir", "full")), node("b")], "ab")
    assert (one["a"].grade, one["a"].text()) == (Grade.FAILED, "a failed: run_dir: full")


def test_the_only_node_of_a_job_is_left_for_a_broken_device_and_not_for_a_full_file_system() -> None:
    assert judge([node("a", 100, failed("gpu_state"))], "a")["a"].grade is Grade.FAILED
    assert judge([node("a", 100, failed("run_dir"))], "a")["a"].grade is Grade.GOOD


def test_a_node_with_fewer_gpus_than_the_others_fails() -> None:
    def with_gpus(host: str, number: int) -> NodeResult:
        return NodeResult(host, (Check("gpu_state", State.OK, "", {"device_memory_gib": (80.0,) * number}),))

    verdicts = judge([with_gpus("a", 4), with_gpus("b", 3), with_gpus("c", 4)], "abc")
    assert verdicts["b"].text() == "b failed: gpu_count: 3 GPUs, where other nodes have 4"


def test_other_versions_than_most_nodes_have_fail_and_a_tie_blames_nobody() -> None:
    verdicts = judge([node("a", torch="2"), node("b", torch="1"), node("c", torch="2")], "abc")
    assert verdicts["b"].text() == "b failed: packages: torch is 1, where most nodes have 2"
    tie = judge([node("a", torch="2"), node("b", torch="1")], "ab")
    assert {verdict.grade for verdict in tie.values()} == {Grade.GOOD}
    assert tie["a"].warnings == ("packages: torch differs between the nodes: 1, 2",)


def test_slow_nodes_train_only_where_good_ones_are_too_few() -> None:
    verdicts = judge([node("a", 50), node("b"), node("c")], "abc")
    assert choose(verdicts, 2).hosts == ("b", "c")
    everybody = choose(verdicts, 3)
    assert everybody.hosts == ("a", "b", "c")
    assert [verdict.host for verdict in everybody.kept_slow] == ["a"]
    assert choose(verdicts, 4).hosts == ()
