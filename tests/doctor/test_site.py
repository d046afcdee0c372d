"""What a SLURM site's settings mean, by name; and that no answer of a command, whatever it is, ends the doctor."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_salamandra.doctor import judge_settings, site_checks
from megatron_salamandra.node_check import Check, State

OF_A_SITE = {
    "SLURM_VERSION": "23.02.7",
    "ProctrackType": "proctrack/cgroup",
    "KillWait": "30 sec",
    "JobRequeue": "1",
    "PreemptMode": "OFF",
    "RequeueExit": "(null)",
    "MaxArraySize": "10001",
    "SlurmdTimeout": "300 sec",
    "SignalChildrenProcesses": "no",
}


def judged(**changed: str) -> dict[str, Check]:
    return {check.name: check for check in judge_settings({**OF_A_SITE, **changed}, 10.0)}


def test_a_site_without_surprises() -> None:
    assert {check.state for check in judged().values()} == {State.OK}


@pytest.mark.parametrize(
    ("name", "value", "helps"),
    [
        ("ProctrackType", "proctrack/linuxproc", "node check"),
        ("ProctrackType", "proctrack/pgid", "node check"),
        ("KillWait", "5 sec", "salamandra stop"),
        ("RequeueExit", "75", "for ever"),
        ("RequeueExitHold", "1-2", "for ever"),
        ("JobRequeue", "0", "--chain"),
        ("PreemptMode", "CANCEL", "--chain"),
        ("PreemptMode", "SUSPEND,GANG", "not preempted"),
        ("MaxArraySize", "101", "at most 100 tasks"),
        ("SlurmdTimeout", "30 min", "1800 s"),
        ("EnforcePartLimits", "NO", "salamandra launch"),
    ],
)
def test_settings_that_bite_are_named_with_what_helps(name: str, value: str, helps: str) -> None:
    check = judged(**{name: value})[name]
    assert (check.state, helps in check.message) == (State.WARNING, True), check.message


def test_a_save_longer_than_killwait_is_a_warning_and_a_shorter_one_is_not() -> None:
    settings = {"KillWait": "30 sec", "SLURM_VERSION": "24.05"}
    assert [check.state for check in judge_settings(settings, 29.0)] == [State.OK, State.OK]
    _, check = judge_settings(settings, 31.0)
    assert (check.state, "this run's save takes 31 s" in check.message) == (State.WARNING, True)
    assert [check.state for check in judge_settings(settings)] == [
        State.OK,
        State.WARNING,
    ]  # of a large model


names = st.sampled_from([*OF_A_SITE, "RequeueExitHold", "EnforcePartLimits", "killwait", "Other"])


@given(st.dictionaries(names, st.text(max_size=12)))
def test_no_value_of_a_setting_breaks_the_doctor(settings: dict[str, str]) -> None:
    assert all(check.state in (State.OK, State.WARNING) for check in judge_settings(settings))


COMMANDS = ("scontrol", "sacctmgr", "sinfo", "squeue", "srun")
GARBAGE = {
    "denied": "echo 'Access/permission denied' >&2; exit 1",
    "silent": "exit 0",
    "binary": "head -c 3000 /dev/zero | tr '\\0' '\\377'",
    "words": "printf 'PartitionName=\\nPartitionName=x MaxTime=tomorrow TotalNodes=many\\n|||\\nKillWait = soon\\n'",
}


@pytest.mark.parametrize("program", GARBAGE.values(), ids=GARBAGE)
def test_whatever_a_command_answers_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    for name in COMMANDS:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    checks = site_checks()
    assert any(check.state is State.WARNING for check in checks)
    assert not any(check.state is State.FAILED for check in checks)


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {check.name: check for check in site_checks()}
    assert "scontrol is not on this machine" in checks["settings"].message
    assert {check.state for check in checks.values()} == {State.WARNING, State.SKIPPED}
