"""What a SLURM site has and allows: its settings, partitions, nodes, and the user's associations and queues."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_salamandra.cluster.profile import seconds_of
from megatron_salamandra.cluster.slurm_command import SlurmAbsent, SlurmError, SlurmSilent, answer

QUERY_SECONDS = 20.0
"""For a question to a login node's SLURM: whoever waits is a person."""
_FIELD = re.compile(r"([\w.]+)=(\S*)")
_SETTING = re.compile(r"^([\w./-]+)\s*=[ \t]*(.*)$", re.MULTILINE)
_GPU = re.compile(r"gpu(?::[\w.-]+)*?:(\d+)(?![\w.:-])")
_NOTHING = ("", "N/A", "NONE", "UNLIMITED", "INFINITE", "(null)")
_EVERYBODY = ("", "ALL", "(null)")


@dataclass(frozen=True)
class QueueLimits:
    """Limits of a partition, a quality of service or an association; None where there is none.

    Attributes:
        seconds: longest job.
        nodes, least_nodes: most and fewest nodes of a job.
        jobs: most jobs of a user in the queue at once, each task of an array counted.
    """

    seconds: int | None = None
    nodes: int | None = None
    least_nodes: int | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        default_seconds: limit of a job that asks for none; None if that is the longest.
        state: UP, DOWN (jobs wait), DRAIN or INACTIVE (nothing is taken).
        own_qos: quality of service whose limits every job of it has; empty for none.
        accounts, qos: whom it is for; None for all.
        denied_accounts, denied_qos: whom it is not for.
    """

    name: str
    is_default: bool
    state: str
    nodes: int | None
    limits: QueueLimits
    default_seconds: int | None
    own_qos: str
    accounts: tuple[str, ...] | None
    qos: tuple[str, ...] | None
    denied_accounts: tuple[str, ...]
    denied_qos: tuple[str, ...]


@dataclass(frozen=True)
class NodeKind:
    """Nodes of a partition that are alike.

    Attributes:
        state: such as idle, mixed, drained, down*.
    """

    nodes: int
    cpus: int
    memory_mib: int
    gpus: int
    features: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class Association:
    """That a user may charge an account; an empty partition stands for all."""

    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    limits: QueueLimits


def settings() -> dict[str, str]:
    """What ``scontrol show config`` says, by name: ``ClusterName``, ``ProctrackType``, ``MaxArraySize``, ...

    Raises:
        SlurmError: it does not answer.
    """
    return {
        name: value.strip()
        for name, value in _SETTING.findall(answer(["scontrol", "show", "config"], QUERY_SECONDS))
    }


def partitions() -> dict[str, Partition]:
    """The partitions that the user sees, by name.

    Raises:
        SlurmError: ``scontrol`` does not answer.
    """
    text = answer(["scontrol", "show", "partition", "--oneliner"], QUERY_SECONDS)
    found = [_partition(dict(_FIELD.findall(line))) for line in text.splitlines() if "PartitionName=" in line]
    return {partition.name: partition for partition in found}


def node_kinds(partition: str) -> tuple[NodeKind, ...]:
    """The nodes of a partition, those that are alike together.

    Raises:
        SlurmError: ``sinfo`` does not answer.
    """
    columns = "%D|%c|%m|%G|%f|%T"
    command = ["sinfo", "--noheader", "--exact", f"--partition={partition}", f"--format={columns}"]
    rows = [line.strip().split("|") for line in answer(command, QUERY_SECONDS).splitlines()]
    return tuple(
        NodeKind(
            _number(row[0]) or 0,
            _number(row[1]) or 0,
            _number(row[2]) or 0,
            sum(int(count) for count in _GPU.findall(row[3])),
            _names(row[4]),
            row[5],
        )
        for row in rows
        if len(row) == 6
    )


def associations(user: str, cluster: str | None = None) -> tuple[Association, ...]:
    """The accounts that a user may charge, with partitions, qualities of service and limits.

    Raises:
        SlurmError: ``sacctmgr`` or the database behind it does not answer.
    """
    rows = _accounting(
        "associations",
        [f"user={user}", *([f"cluster={cluster}"] if cluster else [])],
        ("account", "partition", "qos", "defaultqos", "maxwall", "maxsubmit", "maxtres"),
        needed=3,
    )
    return tuple(
        Association(
            row["account"],
            row["partition"],
            _names(row["qos"]),
            row.get("defaultqos", ""),
            _queue_limits(row),
        )
        for row in rows
    )


def qualities_of_service() -> dict[str, QueueLimits]:
    """Limits of every quality of service, by its name.

    Raises:
        SlurmError: ``sacctmgr`` or the database behind it does not answer.
    """
    columns = ("name", "maxwall", "maxsubmitpu", "maxtres", "mintres")
    return {row["name"]: _queue_limits(row) for row in _accounting("qos", [], columns, needed=2)}


def jobs_in_queue(user: str, qos: str | None = None) -> int:
    """How many jobs of a user wait or run, each task of an array counted.

    Raises:
        SlurmError: ``squeue`` does not answer.
    """
    chosen = [f"--qos={qos}"] if qos else []
    command = ["squeue", "--noheader", "--array", f"--user={user}", *chosen, "--format=%i"]
    return len(answer(command, QUERY_SECONDS).split())


def _accounting(
    what: str, conditions: Sequence[str], columns: Sequence[str], needed: int
) -> list[dict[str, str]]:
    """Rows of ``sacctmgr show``; of the first ``needed`` columns alone where this version does not know the others."""

    def ask(wanted: Sequence[str]) -> list[dict[str, str]]:
        command = ["sacctmgr", "--noheader", "--parsable2", "--readonly", "show", what, *conditions]
        return _rows(answer([*command, f"format={','.join(wanted)}"], QUERY_SECONDS), wanted)

    try:
        return ask(columns)
    except (SlurmAbsent, SlurmSilent):
        raise
    except SlurmError as error:
        if "field" not in str(error).lower():
            raise
        return ask(columns[:needed])


def _rows(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Lines of values between bars: some versions end each with another bar, some print a header all the same."""
    rows = [line.split("|") for line in text.splitlines() if "|" in line or line.strip()]
    header = columns
    if rows and rows[0][0].strip().lower() == columns[0]:
        header = [name.strip().lower().replace(" ", "") for name in rows.pop(0)]
        header = [{"defqos": "defaultqos", "maxsubmitjobs": "maxsubmit"}.get(name, name) for name in header]
    return [
        {name: value.strip() for name, value in zip(header, row, strict=False)}
        for row in rows
        if len(row) >= min(len(header), 2)
    ]


def _queue_limits(row: Mapping[str, str]) -> QueueLimits:
    return QueueLimits(
        _seconds(row.get("maxwall", "")),
        _nodes_of(row.get("maxtres", "")),
        _nodes_of(row.get("mintres", "")),
        _number(row.get("maxsubmit", row.get("maxsubmitpu", ""))),
    )


def _nodes_of(resources: str) -> int | None:
    """Nodes of a list of trackable resources: ``cpu=80,gres/gpu=4,node=8``."""
    found = re.search(r"(?:^|,)node=(\d+)", resources)
    return int(found[1]) if found else None


def _partition(fields: Mapping[str, str]) -> Partition:
    def allowed(name: str) -> tuple[str, ...] | None:
        value = fields.get(name, "ALL")
        return None if value in _EVERYBODY else _names(value)

    return Partition(
        name=fields["PartitionName"],
        is_default=fields.get("Default") == "YES",
        state=fields.get("State", "UP"),
        nodes=_number(fields.get("TotalNodes", "")),
        limits=QueueLimits(
            _seconds(fields.get("MaxTime", "")),
            _number(fields.get("MaxNodes", "")),
            _number(fields.get("MinNodes", "")),
        ),
        default_seconds=_seconds(fields.get("DefaultTime", "")),
        own_qos="".join(_names(fields.get("QoS", ""))),
        accounts=allowed("AllowAccounts"),
        qos=allowed("AllowQos"),
        denied_accounts=_names(fields.get("DenyAccounts", "")),
        denied_qos=_names(fields.get("DenyQos", "")),
    )


def _names(text: str) -> tuple[str, ...]:
    return (
        ()
        if text in _NOTHING
        else tuple(name.strip().lstrip("+") for name in text.split(",") if name.strip())
    )


def _number(text: str) -> int | None:
    found = re.match(r"\d+", text.strip())
    return int(found[0]) if found else None


def _seconds(text: str) -> int | None:
    if text in _NOTHING:
        return None
    try:
        return seconds_of(text)
    except ValueError:  # a form of this version that we do not know: no limit rather than a wrong one
        return None
