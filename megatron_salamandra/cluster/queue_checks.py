"""A job against what its queue has and allows, before it waits there for days.

Asks SLURM through :mod:`slurm_site`. What does not answer (no accounting database, no SLURM on this machine) is said to
be unchecked; ``sbatch --test-only`` and the queue itself have the last word.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from megatron_salamandra.cluster import slurm_site
from megatron_salamandra.cluster.objection import Findings
from megatron_salamandra.cluster.profile import seconds_of
from megatron_salamandra.cluster.slurm_command import SlurmAbsent, SlurmError, SlurmSilent
from megatron_salamandra.cluster.slurm_site import Association, NodeKind, Partition, QueueLimits
from megatron_salamandra.foundation.names import name_hint

Answer = TypeVar("Answer")
_GPU_COUNT = re.compile(r"gpu(?::[\w.-]+)*?:(\d+)(?![\w.:-])")
_MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_FEATURE = re.compile(r"[A-Za-z_][\w.-]*")
_GONE = ("down", "drain", "fail", "error", "unknown")


@dataclass(frozen=True)
class QueueRequest:
    """What a job asks of the queue.

    Attributes:
        cpus: of a node.
        gpus: of a node; 0 for none.
        memory_mib: of a node; None for the partition's default.
        seconds: time limit; None leaves it to the partition.
        constraint: expression of node features.
        jobs: that are submitted at once; every task of an array is one.
    """

    nodes: int
    cpus: int
    gpus: int = 0
    memory_mib: int | None = None
    seconds: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    jobs: int = 1

    @classmethod
    def of_options(
        cls, options: Mapping[str, str], environment: Mapping[str, str] = os.environ, *, jobs: int = 1
    ) -> QueueRequest:
        """The request of a batch script's options, by their long names.

        sbatch's variables (``SBATCH_ACCOUNT``, ...) win over the script's options, as they do for sbatch.

        Raises:
            ValueError: a number or a time cannot be read.
        """

        def chosen(name: str) -> str | None:
            return environment.get(f"SBATCH_{name.upper()}") or options.get(name) or None

        time = environment.get("SBATCH_TIMELIMIT") or options.get("time")
        per_node = options.get("gpus-per-node", "0").rpartition(":")[2]
        counted = [int(count) for count in _GPU_COUNT.findall(options.get("gres", ""))]
        tasks, cpus = int(options.get("ntasks-per-node", "1")), int(options.get("cpus-per-task", "1"))
        return cls(
            nodes=int(options.get("nodes", "1").split("-")[0]),
            cpus=tasks * cpus,
            gpus=max(int(per_node), sum(counted)),
            memory_mib=_mebibytes(options["mem"]) if options.get("mem") else None,
            seconds=None if time is None else seconds_of(time),
            partition=chosen("partition"),
            account=chosen("account"),
            qos=chosen("qos"),
            constraint=chosen("constraint"),
            jobs=jobs,
        )


def check_queue(request: QueueRequest, least_seconds: int | None = None, what_for: str = "") -> Findings:
    """Everything that SLURM tells about a job before it is submitted.

    Args:
        least_seconds: that the job needs; compared with the partition's default where the job asks for no time.
        what_for: what those seconds are for, in words.
    """
    return _Check(request, least_seconds, what_for).run()


class _Check:
    def __init__(self, request: QueueRequest, least_seconds: int | None, what_for: str) -> None:
        self._request, self._least_seconds, self._what_for = request, least_seconds, what_for
        self._found = Findings()
        self._silent = False

    def run(self) -> Findings:
        settings = self._ask("settings of SLURM", slurm_site.settings) or {}
        partition = self._partition()
        if partition is not None:
            self._check_partition(partition)
            self._check_nodes(partition)
        self._check_account(settings, partition)
        return self._found

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer | None:
        """The answer; None, with a note, where there is none to be had."""
        if self._silent:  # one that hangs is enough waiting
            return None
        try:
            return question()
        except SlurmAbsent as error:
            self._found.note(f"{what}: could not be checked: {error}")
        except SlurmSilent as error:
            self._silent = True
            self._found.note(f"{what}, and what SLURM tells beyond: could not be checked: {error}")
        except SlurmError as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), str(error))
            self._found.note(f"{what}: could not be checked: {first}")
        return None

    def _partition(self) -> Partition | None:
        known = self._ask("partition", slurm_site.partitions)
        if not known:
            return None
        wanted = self._request.partition
        if wanted is None:
            return next((partition for partition in known.values() if partition.is_default), None)
        if "," in wanted:  # several to choose from: SLURM takes whichever fits
            self._found.note(f"partition {wanted}: several are named, which is left to sbatch to check")
            return None
        if wanted not in known:
            self._found.object(
                f"partition {wanted} is not on this cluster\n  {name_hint(wanted, sorted(known))}"
            )
        return known.get(wanted)

    def _check_partition(self, partition: Partition) -> None:
        wanted, where = self._request, f"partition {partition.name}"
        if partition.state in ("INACTIVE", "DRAIN"):
            self._found.object(
                f"{where} takes no jobs now: its state is {partition.state}\n  choose another one"
            )
        elif partition.state == "DOWN":
            self._found.note(f"{where} is down: jobs wait until it is up again")
        self._check_limits(where, partition.limits)
        if partition.nodes is not None and wanted.nodes > partition.nodes:
            self._found.object(
                f"{wanted.nodes} nodes are more than {where} has\n  at most {partition.nodes}, spares included"
            )
        for kind, name, allowed, denied in (
            ("account", wanted.account, partition.accounts, partition.denied_accounts),
            ("qos", wanted.qos, partition.qos, partition.denied_qos),
        ):
            if name is not None and (name in denied or (allowed is not None and name not in allowed)):
                others = f"it takes {', '.join(allowed)}" if allowed else f"it refuses {', '.join(denied)}"
                self._found.object(f"{where} does not take {kind} {name}\n  {others}")
        given = wanted.seconds is not None
        default = partition.default_seconds or partition.limits.seconds
        if (
            not given
            and self._least_seconds is not None
            and default is not None
            and default < self._least_seconds
        ):
            self._found.object(
                f"without --time a job of {where} gets {default} s, which are not enough {self._what_for}\n"
                f"  --time {-(-self._least_seconds // 60)} (minutes) at least",
                forcible=True,
            )

    def _check_limits(self, where: str, limits: QueueLimits) -> None:
        wanted = self._request
        if wanted.seconds is not None and limits.seconds is not None and wanted.seconds > limits.seconds:
            self._found.object(
                f"a time limit of {_time(wanted.seconds)} is more than {where} allows\n"
                f"  at most --time {_time(limits.seconds)}"
            )
        if limits.nodes is not None and wanted.nodes > limits.nodes:
            self._found.object(
                f"{wanted.nodes} nodes are more than {where} allows for a job\n  at most {limits.nodes}"
            )
        if limits.least_nodes is not None and wanted.nodes < limits.least_nodes:
            self._found.object(
                f"{wanted.nodes} nodes are fewer than {where} wants of a job\n  at least {limits.least_nodes}"
            )

    def _check_nodes(self, partition: Partition) -> None:
        kinds = self._ask(
            f"nodes of partition {partition.name}", lambda: slurm_site.node_kinds(partition.name)
        )
        if not kinds:
            return
        wanted = self._request
        kinds = self._with_features(kinds, partition.name)
        for unit, need, most in (
            ("CPUs", wanted.cpus, max(kind.cpus for kind in kinds)),
            ("GPUs", wanted.gpus, max(kind.gpus for kind in kinds)),
            ("MiB of memory", wanted.memory_mib or 0, max(kind.memory_mib for kind in kinds)),
        ):
            if need > most:
                self._found.object(
                    f"{need} {unit} of a node are asked for, and nodes of partition {partition.name} have {most}\n"
                    "  choose another profile or partition, or set the profile's tasks_per_node, cpus_per_task and "
                    "sbatch options to what the nodes have"
                )
        fitting = [
            kind
            for kind in kinds
            if kind.cpus >= wanted.cpus
            and kind.gpus >= wanted.gpus
            and kind.memory_mib >= (wanted.memory_mib or 0)
        ]
        there = sum(kind.nodes for kind in fitting)
        if fitting and there < wanted.nodes:
            self._found.object(
                f"{wanted.nodes} nodes are asked for, and {there} of partition {partition.name} have what each needs\n"
                "  ask for fewer, or choose another partition or constraint"
            )
        elif (up := sum(kind.nodes for kind in fitting if not kind.state.startswith(_GONE))) < wanted.nodes:
            self._found.note(
                f"only {up} of {there} fitting nodes of partition {partition.name} are in service now: "
                f"a job of {wanted.nodes} waits for the others"
            )

    def _with_features(self, kinds: Sequence[NodeKind], partition: str) -> tuple[NodeKind, ...]:
        """Those of the kinds that have the features asked for; all where that cannot be said."""
        asked = self._request.constraint
        if asked is None:
            return tuple(kinds)
        known = {feature for kind in kinds for feature in kind.features}
        words = _FEATURE.findall(asked)
        for word in dict.fromkeys(words):
            if word not in known:
                hint = name_hint(word, sorted(known)) if known else "its nodes have no features"
                self._found.object(
                    f"constraint {asked}: no node of partition {partition} has {word}\n  {hint}"
                )
        if set(words) <= known and not set(asked) & set("|[]()*"):
            return tuple(kind for kind in kinds if set(words) <= set(kind.features)) or tuple(kinds)
        return tuple(kinds)

    def _check_account(self, settings: Mapping[str, str], partition: Partition | None) -> None:
        wanted, user = self._request, getpass.getuser()
        mine = self._ask(
            "account and qos",
            lambda: slurm_site.associations(user, settings.get("ClusterName")),
        )
        if mine is None:
            return
        if not mine:
            self._found.note(f"account and qos: the accounting database has no association of {user}")
            if wanted.account is None and wanted.qos is None:
                return
        name = wanted.partition or (partition.name if partition else None)
        # A site may keep accounts without holding anybody to them.
        loose = settings.get("AccountingStorageEnforce", "").lower() in ("none", "(null)")
        fitting = [
            entry
            for entry in mine
            if entry.partition in ("", name) and wanted.account in (None, entry.account)
        ]
        if wanted.account is not None and not fitting:
            self._found.object(
                f"account {wanted.account}: {user} may not charge it"
                f"{f' in partition {name}' if any(entry.account == wanted.account for entry in mine) else ''}\n"
                f"  yours are {', '.join(sorted({_charged(entry) for entry in mine})) or 'none'}",
                forcible=loose,
            )
            return
        allowed = sorted({qos for entry in fitting for qos in entry.qos})
        if wanted.qos is not None and wanted.qos not in allowed:
            charged = f" with account {wanted.account}" if wanted.account else ""
            self._found.object(
                f"qos {wanted.qos}: {user} may not use it{charged}\n  yours are {', '.join(allowed) or 'none'}",
                forcible=loose,
            )
            return
        self._check_accounting_limits(fitting, user, partition.own_qos if partition else "")

    def _check_accounting_limits(self, fitting: Sequence[Association], user: str, of_partition: str) -> None:
        wanted = self._request
        if len(fitting) == 1:
            self._check_limits(f"your association with account {fitting[0].account}", fitting[0].limits)
            self._check_submitted(
                f"your association with account {fitting[0].account}", fitting[0].limits, user
            )
        qos = wanted.qos or (fitting[0].default_qos if len(fitting) == 1 else "")
        for name in dict.fromkeys(name for name in (qos, of_partition) if name):
            limits = (self._ask(f"limits of qos {name}", slurm_site.qualities_of_service) or {}).get(name)
            if limits is not None:
                self._check_limits(f"qos {name}", limits)
                self._check_submitted(f"qos {name}", limits, user, name)

    def _check_submitted(self, where: str, limits: QueueLimits, user: str, qos: str | None = None) -> None:
        if limits.jobs is None:
            return
        there = self._ask("jobs in the queue", lambda: slurm_site.jobs_in_queue(user, qos))
        if there is not None and there + self._request.jobs > limits.jobs:
            self._found.object(
                f"{where} lets {limits.jobs} jobs be in the queue: {there} of yours are, and "
                f"{self._request.jobs} would be submitted\n  wait for some of them, or ask for fewer",
                forcible=self._request.jobs <= limits.jobs,
            )


def _charged(entry: Association) -> str:
    return f"{entry.account} ({entry.partition})" if entry.partition else entry.account


def _mebibytes(memory: str) -> int:
    found = _MEMORY.fullmatch(memory)
    if found is None:
        raise ValueError(f"mem={memory} is not an amount of memory such as 460000 (MB) or 450G")
    shift = {"K": -10, "M": 0, "G": 10, "T": 20}[found[2].upper() or "M"]
    return int(found[1]) << shift if shift >= 0 else int(found[1]) >> -shift


def _time(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
