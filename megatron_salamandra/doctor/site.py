"""What a SLURM site's settings mean for runs, by the name of each setting, with what helps."""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterator, Mapping

from megatron_salamandra.cluster import slurm_site
from megatron_salamandra.doctor.section import guarded
from megatron_salamandra.foundation.commands import run_command
from megatron_salamandra.node_check import Check, State

_RUNTIMES = ("apptainer", "singularity", "enroot", "podman", "docker")
_SAVE_SECONDS = 60.0
"""Of a save, where no run tells its own: 40 billion parameters on a parallel file system."""
_LEAST_ARRAY = 1000
_LATE_SECONDS = 600.0


def site_checks(save_seconds: float | None = None) -> list[Check]:
    """Ask this site's SLURM; a command that is missing, refuses or says something unknown is a warning.

    Args:
        save_seconds: that a save of the user's run takes; None takes a large one's.
    """
    return [
        *guarded("settings", lambda: judge_settings(slurm_site.settings(), save_seconds)),
        *guarded("partitions", _partitions),
        *guarded("accounts", _accounts),
        *guarded("qos", _qos),
        *guarded("containers", _containers),
    ]


def judge_settings(settings: Mapping[str, str], save_seconds: float | None = None) -> Iterator[Check]:
    """Checks of what ``scontrol show config`` says; names that a version does not have are passed over."""
    if not {"SLURM_VERSION", "ProctrackType"} & settings.keys():
        yield Check("settings", State.WARNING, "scontrol show config answers in a form that is not known")
    known = {name.lower(): value for name, value in settings.items()}

    def of(name: str) -> str | None:
        value = known.get(name.lower())
        return None if value in (None, "", "(null)") else value

    if version := of("SLURM_VERSION"):
        yield Check("SLURM_VERSION", State.OK, version)
    if value := of("ProctrackType"):
        yield from _tracking(value)
    if (value := of("SignalChildrenProcesses")) is not None:
        yes = value.lower() in ("yes", "1", "true")
        reach = "reach every process of a task; savers are deaf to them" if yes else "reach the tasks alone"
        yield Check("SignalChildrenProcesses", State.OK, f"{value}: signals {reach}")
    if (seconds := _seconds(of("KillWait"))) is not None:
        yield _kill_wait(seconds, save_seconds)
    for name in ("RequeueExit", "RequeueExitHold"):
        if codes := of(name):
            yield Check(
                name,
                State.WARNING,
                f"{codes}: the site itself queues again jobs that end with these codes\n"
                "a run that failed for good ends with 1 or 2; with either of these here it comes back for ever",
            )
    if (value := of("JobRequeue")) is not None:
        yield _requeue(value)
    if value := of("PreemptMode"):
        yield _preemption(value)
    if (value := of("MaxArraySize")) and value.isdigit():
        small = int(value) < _LEAST_ARRAY
        yield Check(
            "MaxArraySize",
            State.WARNING if small else State.OK,
            f"{value}: arrays have at most {int(value) - 1} tasks"
            + ("\nprepare data with --tasks below that" if small else ""),
        )
    if (seconds := _seconds(of("SlurmdTimeout"))) is not None and seconds > _LATE_SECONDS:
        yield Check(
            "SlurmdTimeout",
            State.WARNING,
            f"{seconds:.0f} s until a node that fell silent counts as lost; until then its ranks hang",
        )
    if (value := of("EnforcePartLimits")) and value.upper() == "NO":
        yield Check(
            "EnforcePartLimits",
            State.WARNING,
            "NO: sbatch takes jobs that can never start\nsubmit with salamandra launch, which checks limits",
        )


def _tracking(value: str) -> Iterator[Check]:
    kind = value.rpartition("/")[2]
    if kind == "cgroup":
        message = f"{value}: signals reach tasks alone, and what a task leaves behind is found"
        yield Check("ProctrackType", State.OK, message)
    else:
        yield Check(
            "ProctrackType",
            State.WARNING,
            f"{value}: processes that leave their parent or group are lost, and may hold a GPU after a crash\n"
            "the node check finds them before the next round; proctrack/cgroup would not lose them",
        )


def _kill_wait(seconds: float, save_seconds: float | None) -> Check:
    needed = _SAVE_SECONDS if save_seconds is None else save_seconds
    if seconds >= needed:
        return Check("KillWait", State.OK, f"{seconds:.0f} s between SIGTERM and SIGKILL")
    whose = "a large model's save" if save_seconds is None else "this run's save"
    return Check(
        "KillWait",
        State.WARNING,
        f"{seconds:.0f} s between SIGTERM and SIGKILL, and {whose} takes {needed:.0f} s\n"
        "scancel loses what is not saved: use salamandra stop RUN",
    )


def _requeue(value: str) -> Check:
    if value.strip() in ("0", "no", "NO"):
        return Check(
            "JobRequeue",
            State.WARNING,
            f"{value}: jobs come back only where they ask for it\n"
            "salamandra launch asks (--requeue); where the site refuses it all the same, use --chain N",
        )
    return Check("JobRequeue", State.OK, f"{value}: jobs may go back into the queue")


def _preemption(value: str) -> Check:
    modes = {mode.strip().upper() for mode in value.split(",")}
    if modes & {"SUSPEND", "GANG"}:
        return Check(
            "PreemptMode",
            State.WARNING,
            f"{value}: a job may be suspended in the middle of a step\n"
            "choose a partition or QoS that is not preempted",
        )
    if "CANCEL" in modes:
        return Check(
            "PreemptMode",
            State.WARNING,
            f"{value}: a preempted job does not come back\nuse --chain N, or a QoS that is not preempted",
        )
    return Check("PreemptMode", State.OK, value)


def _partitions() -> Iterator[Check]:
    found = {name: partition for name, partition in slurm_site.partitions().items() if name}
    if not found:
        yield Check("partitions", State.WARNING, "scontrol names no partition that you may see")
    for partition in found.values():
        limits, own = partition.limits, " (default)" if partition.is_default else ""
        parts = [f"{partition.nodes or '?'} nodes", f"jobs up to {_duration(limits.seconds)}"]
        if limits.nodes is not None:
            parts.append(f"up to {limits.nodes} nodes a job")
        if partition.state != "UP":
            parts.append(f"state {partition.state}: jobs do not start")
        state = State.OK if partition.state == "UP" else State.WARNING
        yield Check(f"partition {partition.name}", state, f"{', '.join(parts)}{own}")


def _accounts() -> Iterator[Check]:
    found = slurm_site.associations(getpass.getuser())
    for one in found:
        place = f" in {one.partition}" if one.partition else ""
        qos = f", QoS {', '.join(one.qos)}" if one.qos else ""
        limits = f", jobs up to {_duration(one.limits.seconds)}" if one.limits.seconds is not None else ""
        yield Check("account", State.OK, f"{one.account}{place}{qos}{limits}")
    if not found:
        message = f"sacctmgr knows no account of {getpass.getuser()}\nask your site which one to use"
        yield Check("account", State.WARNING, message)


def _qos() -> Iterator[Check]:
    mine = {name for one in slurm_site.associations(getpass.getuser()) for name in one.qos}
    for name, limits in slurm_site.qualities_of_service().items():
        if name in mine:
            told = [f"jobs up to {_duration(limits.seconds)}"]
            told += [f"up to {limits.nodes} nodes"] if limits.nodes is not None else []
            told += [f"up to {limits.jobs} jobs in the queue"] if limits.jobs is not None else []
            yield Check(f"qos {name}", State.OK, ", ".join(told))


def _containers() -> Iterator[Check]:
    found = [name for name in _RUNTIMES if shutil.which(name)]
    if shutil.which("srun"):
        options = run_command(["srun", "--help"], 20.0).output
        found += ["pyxis"] if "--container-image" in options else []
        found += ["edf (srun --environment)"] if re.search(r"--environment\b", options) else []
    if found:
        yield Check("containers", State.OK, ", ".join(found))
    else:
        yield Check("containers", State.SKIPPED, "no container runtime here; compute nodes may have one")


def _seconds(value: str | None) -> float | None:
    """Of a value such as ``30 sec``."""
    found = re.match(r"(\d+(?:\.\d+)?)\s*(sec|min|hour|day)?", value or "")
    if found is None:
        return None
    return float(found[1]) * {"min": 60, "hour": 3600, "day": 86400}.get(found[2] or "", 1)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "any length"
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:00"
    return f"{days}-{text}" if days else text
