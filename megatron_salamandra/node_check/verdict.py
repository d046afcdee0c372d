"""What follows from the results of all nodes: which are good, slow, broken or silent. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from megatron_salamandra.node_check.result import NodeResult, State

SHARE_OF_MEDIAN: Mapping[str, float] = {
    "matmul_tflops": 0.85,
    "copy_gb_per_s": 0.85,
    "all_reduce_gb_per_s": 0.85,
    "max_clock_mhz": 0.97,
    "device_memory_gib": 0.97,
    "network_ports_up": 1.0,
    # What depends on neighbours and on a file system that all share: only a node far from the others is at fault.
    "free_memory_gib": 0.5,
    "write_mib_per_s": 0.25,
}
"""A node whose slowest device has less than this share of the median over all devices of all nodes is slow."""

OF_THE_SITE = frozenset({"run_dir", "clock", "packages"})
"""Checks that tell more of what nodes share than of the node: a job of a single node does not lose it over them."""


class Grade(StrEnum):
    """What a node is good for."""

    GOOD = "good"
    SLOW = "slow"
    """Used only where no other node is left."""
    FAILED = "failed"
    SILENT = "silent"
    """It did not answer in time."""


@dataclass(frozen=True)
class Verdict:
    """One node.

    Attributes:
        reasons: why it is not good.
        warnings: what is worth knowing but changes nothing.
    """

    host: str
    grade: Grade
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """One line: ``node7 failed: GPU 3: ...``."""
        return f"{self.host} {self.grade.value}: {'; '.join(self.reasons)}".removesuffix(": ")


@dataclass(frozen=True)
class Choice:
    """The nodes of a round.

    Attributes:
        hosts: that train; empty if there are too few.
        left_out: bad or slow ones that do not train.
        kept_slow: slow ones that train because nobody else is there.
    """

    hosts: tuple[str, ...]
    left_out: tuple[Verdict, ...]
    kept_slow: tuple[Verdict, ...]


def judge(results: Sequence[NodeResult], hosts: Sequence[str]) -> dict[str, Verdict]:
    """A verdict on each of ``hosts``, in their order.

    What all nodes fail alike is no node's fault, so it becomes a warning: a full file system, an image without a
    driver. The same holds where nobody answers: the check could not be run.

    Args:
        results: of the nodes that answered; results of other hosts are passed over.
        hosts: all that were asked, each once.
    """
    answered = {result.host: result for result in results if result.host in hosts}
    if not answered:
        return {
            host: Verdict(host, Grade.GOOD, warnings=("the node check gave no answer",)) for host in hosts
        }
    failed = {
        host: {check.name: check.message or "failed" for check in result.of(State.FAILED)}
        for host, result in answered.items()
    }
    for host, reason in _fewer_devices(answered).items():
        failed[host].setdefault("gpu_count", reason)
    for host, reason in _other_facts(answered).items():
        failed[host].setdefault("packages", reason)
    common = set.intersection(*(set(names) for names in failed.values()))
    excused = common if len(answered) > 1 else OF_THE_SITE
    slow = _slow(answered)
    undecided = _undecided_facts(answered)
    verdicts = {}
    for host in hosts:
        if host not in answered:
            verdicts[host] = Verdict(host, Grade.SILENT, ("no answer to the node check",))
            continue
        reasons = tuple(f"{name}: {_line(why)}" for name, why in failed[host].items() if name not in excused)
        warnings = [f"{name}: {_line(why)}" for name, why in failed[host].items() if name in excused]
        warnings += [f"{check.name}: {_line(check.message)}" for check in answered[host].of(State.WARNING)]
        warnings += undecided
        if reasons:
            verdicts[host] = Verdict(host, Grade.FAILED, reasons, tuple(warnings))
        elif host in slow:
            verdicts[host] = Verdict(host, Grade.SLOW, slow[host], tuple(warnings))
        else:
            verdicts[host] = Verdict(host, Grade.GOOD, (), tuple(warnings))
    return verdicts


def choose(verdicts: Mapping[str, Verdict], needed: int) -> Choice:
    """The ``needed`` nodes of the next round, in the order of ``verdicts``: good ones, and slow ones where these are
    too few; none if even then there are too few."""
    good = [host for host, verdict in verdicts.items() if verdict.grade is Grade.GOOD]
    slow = [host for host, verdict in verdicts.items() if verdict.grade is Grade.SLOW]
    chosen = set((good + slow)[:needed]) if len(good) + len(slow) >= needed else set()
    left_out = tuple(
        verdict
        for host, verdict in verdicts.items()
        if verdict.grade in (Grade.FAILED, Grade.SILENT)
        or (verdict.grade is Grade.SLOW and host not in chosen)
    )
    kept = tuple(verdicts[host] for host in slow if host in chosen)
    return Choice(tuple(host for host in verdicts if host in chosen), left_out, kept)


def _slow(answered: Mapping[str, NodeResult]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, share in SHARE_OF_MEDIAN.items():
        rates = {host: result.figures[name] for host, result in answered.items() if result.figures.get(name)}
        if len(rates) < 2:
            continue
        usual = median(value for values in rates.values() for value in values)
        for host, values in rates.items():
            worst = min(values)
            if worst < share * usual:
                device = f" of device {values.index(worst)}" if len(values) > 1 else ""
                reason = (
                    f"{name}{device} is {worst:.4g}, {worst / usual:.2f} of the median of the nodes ({usual:.4g}; "
                    f"at least {share:g})"
                )
                found[host] = (*found.get(host, ()), reason)
    return found


def _fewer_devices(answered: Mapping[str, NodeResult]) -> dict[str, str]:
    counts = {host: len(result.figures.get("device_memory_gib", ())) for host, result in answered.items()}
    most = max(counts.values())
    return {
        host: f"{count} GPUs, where other nodes have {most}" for host, count in counts.items() if count < most
    }


def _values(answered: Mapping[str, NodeResult]) -> dict[str, Counter[str]]:
    values: dict[str, Counter[str]] = {}
    for result in answered.values():
        for name, value in result.facts.items():
            values.setdefault(name, Counter())[value] += 1
    return values


def _majority(values: Counter[str]) -> str | None:
    value, number = values.most_common(1)[0]
    return value if 2 * number > values.total() else None


def _other_facts(answered: Mapping[str, NodeResult]) -> dict[str, str]:
    """Nodes whose versions are others than most nodes have."""
    usual = {name: _majority(counts) for name, counts in _values(answered).items()}
    found = {}
    for host, result in answered.items():
        other = [
            f"{name} is {value}, where most nodes have {usual[name]}"
            for name, value in result.facts.items()
            if usual[name] not in (None, value)
        ]
        if other:
            found[host] = ", ".join(other)
    return found


def _undecided_facts(answered: Mapping[str, NodeResult]) -> list[str]:
    """What differs between nodes without a majority, so that nobody can be blamed."""
    return [
        f"packages: {name} differs between the nodes: {', '.join(sorted(counts))}"
        for name, counts in sorted(_values(answered).items())
        if len(counts) > 1 and _majority(counts) is None
    ]


def _line(message: str) -> str:
    return " ".join(message.split())
