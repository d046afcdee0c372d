"""Stages become job arrays that wait for each other, once; failed ones are told and submitted again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import execution_tasks
import pytest
from execution_tasks import WriteSquare, WriteSum
from slurm_stand_in import install_slurm_stand_in

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.execution import LocalSettings, Outcome, SlurmSettings, Stage, run_stages

TASKS = 5
SETTINGS = SlurmSettings(partition="cpu")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that runs jobs at once, in arrays of at most 3 tasks; returns the directory of their records."""
    environment, jobs = install_slurm_stand_in(tmp_path / "slurm", max_array_size=3)
    monkeypatch.setenv("PATH", environment["PATH"])
    # Tasks are processes of their own that must find the tests' functions.
    support = str(Path(execution_tasks.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", f"{support}:{os.environ.get('PYTHONPATH', '')}")
    return jobs


def stages(tmp_path: Path, tasks: int = TASKS, forbidden: int = -1) -> list[Stage]:
    directory = tmp_path / "out"
    directory.mkdir(exist_ok=True)
    return [
        Stage("squares", tasks, WriteSquare(directory, forbidden)),
        Stage("sum", 1, WriteSum(directory)),
    ]


def run(tmp_path: Path, plan: list[Stage], settings: SlurmSettings = SETTINGS) -> Outcome:
    return run_stages(plan, settings, tmp_path / "work")


def job(jobs: Path, number: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((jobs / number).read_text())
    return record


def test_programs_of_the_setup_may_import_what_lies_beside_them(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as in each command of ours
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "beside.py").write_text("")
    (tmp_path / "tools" / "x.py").write_text("import beside\n")
    setup = f"{sys.executable} {tmp_path}/tools/x.py && touch {tmp_path}/imported"
    run(tmp_path, stages(tmp_path, 1), SlurmSettings(partition="cpu", time="01:00:00", setup=setup))
    assert (tmp_path / "imported").exists() and (tmp_path / "out" / "sum").exists()


def test_each_stage_is_one_array_that_waits_for_the_one_before(tmp_path: Path, slurm: Path) -> None:
    settings = SlurmSettings(
        partition="cpu",
        time="01:30:00",
        cpus_per_task=3,
        max_running=2,
        qos="debug",
        account="project",
        options={"constraint": "highmem", "exclusive": ""},
        setup=f"export SETUP=done; touch {tmp_path}/setup",
    )
    outcome = run(tmp_path, stages(tmp_path, 2), settings)
    assert not outcome.done and outcome.submitted and list(outcome.jobs) == ["squares", "sum"]
    assert (tmp_path / "out" / "sum").read_text() == "1" and (tmp_path / "setup").exists()
    (first,), (last,) = outcome.jobs["squares"], outcome.jobs["sum"]
    assert job(slurm, first)["given"]["array"] == "0-1%2" and job(slurm, first)["codes"] == [0, 0]
    assert job(slurm, last)["dependency"] == f"afterok:{first}"
    expected = {
        "partition": "cpu",
        "time": "01:30:00",
        "cpus-per-task": "3",
        "mem-per-cpu": "4G",
        "qos": "debug",
        "account": "project",
        "constraint": "highmem",
        "exclusive": "",
        "kill-on-invalid-dep": "yes",
    }
    assert expected.items() <= job(slurm, first)["given"].items()
    assert len(list(slurm.iterdir())) == 2  # and no third that adds up statistics
    assert run(tmp_path, stages(tmp_path, 2), settings).done  # nothing is left to submit


def test_a_stage_waits_for_all_arrays_of_the_one_before_and_not_only_for_the_last(
    tmp_path: Path, slurm: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "obstacle").touch()
    outcome = run(tmp_path, stages(tmp_path, forbidden=2))
    first, second = outcome.jobs["squares"]
    assert not job(slurm, first)["ok"] and job(slurm, second)["ok"]
    assert job(slurm, outcome.jobs["sum"][0])["dependency"] == f"afterok:{first}:{second}"
    assert not (tmp_path / "out" / "sum").exists()
    (tmp_path / "out" / "obstacle").unlink()
    outcome = run(tmp_path, stages(tmp_path, forbidden=2))
    assert (
        outcome.failure is not None
        and "is in the way of task 2\n  (squares, task 2; 1 of 5" in outcome.failure
    )
    (again,) = outcome.jobs["squares"]
    assert job(slurm, again)["given"]["array"] == "0-0"
    assert (tmp_path / "out" / "sum").read_text() == "30"


def test_while_jobs_are_in_the_queue_nothing_is_submitted_and_no_other_executor_starts(
    tmp_path: Path, slurm: Path
) -> None:
    hold = slurm.with_name("jobs.hold")
    hold.touch()
    first = run(tmp_path, stages(tmp_path, 2))
    submitted = sorted(os.listdir(slurm))
    second = run(tmp_path, stages(tmp_path, 2))
    assert not second.submitted and second.jobs == first.jobs and sorted(os.listdir(slurm)) == submitted
    with pytest.raises(DataError, match=r"are pending or running: 1000, 1001\n.*scancel 1000 1001"):
        run_stages(stages(tmp_path, 2), LocalSettings(), tmp_path / "work")
    assert not (tmp_path / "out" / "calls").exists()
    hold.unlink()  # as if they had been cancelled
    assert run(tmp_path, stages(tmp_path, 2)).submitted
    assert (tmp_path / "out" / "sum").read_text() == "1"


def test_jobs_that_squeue_does_not_tell_of_are_not_taken_for_gone(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.with_name("jobs.hold").touch()
    run(tmp_path, stages(tmp_path, 2))
    (tmp_path / "slurm/bin/squeue").write_text("#!/bin/sh\necho socket timed out >&2; exit 1\n")
    with pytest.raises(DataError, match=r"slurm-jobs\.json: .*squeue: socket timed out\n.*remove the file"):
        run(tmp_path, stages(tmp_path, 2))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match="no `squeue` on this machine"):
        run_stages(stages(tmp_path, 2), LocalSettings(), tmp_path / "work")


def test_a_job_that_slurm_has_forgotten_is_gone(tmp_path: Path, slurm: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/slurm-jobs.json").write_text('{"squares": ["77"]}')
    outcome = run(tmp_path, stages(tmp_path, 1))
    assert outcome.submitted and outcome.failure is not None
    assert "squares: 1 of 1 tasks are not done, the first is 0\n  it may have been killed" in outcome.failure


def test_slurm_is_refused_where_it_cannot_work(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = stages(tmp_path)
    with monkeypatch.context() as inside:
        inside.setenv("SLURM_ARRAY_TASK_ID", "0")
        with pytest.raises(DataError, match="no arrays can be submitted"):
            run(tmp_path, plan)
    (tmp_path / "slurm/bin/sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    with pytest.raises(DataError, match="squares: sbatch refused the job"):
        run(tmp_path, plan)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match="no `sbatch` on this machine"):
        run(tmp_path, plan)


def test_what_was_submitted_before_a_refusal_is_known_to_the_next_call(tmp_path: Path, slurm: Path) -> None:
    slurm.with_name("jobs.hold").touch()
    sbatch = tmp_path / "slurm/bin/sbatch"
    real = sbatch.rename(sbatch.with_name("real-sbatch"))
    sbatch.write_text(f'#!/bin/sh\n[ -e {slurm}/1001 ] && exit 1\nexec {real} "$@"\n')
    sbatch.chmod(0o755)
    with pytest.raises(DataError, match="sum: sbatch refused the job .*; submitted already: 1000, 1001\n"):
        run(tmp_path, stages(tmp_path))
    assert run(tmp_path, stages(tmp_path)).jobs == {"squares": ["1000", "1001"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": "soon"}, "--slurm-time 'soon' is not a time"),
        ({"max_running": 0}, "--workers 0: at least 1"),
        ({"options": {"Mem Ory": ""}}, "--slurm-option Mem Ory: not an option of sbatch"),
        ({"options": {"mem": "8G"}}, "--slurm-option mem=8G: use --memory-per-cpu"),
        ({"options": {"array": "0-3"}}, "--slurm-option array=0-3: is set for each stage"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, stages(tmp_path), SlurmSettings("cpu", **changes))


def test_options_for_sbatch_and_a_command_before_each_task_come_from_the_command_line(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.with_name("jobs.hold").touch()
    (tmp_path / "in.jsonl").write_text('{"text": "x = 1", "language": "code"}\n')
    command = ["data", "curate", "--input", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out")]
    command += [
        "--executor=slurm",
        "--slurm-partition=cpu",
        "--keep-near",
        "--keep-paragraphs",
        "--keep-exact",
    ]
    command += [
        "--slurm-option=constraint=a&b",
        "--slurm-option",
        "exclusive",
        "--slurm-setup=module load gcc",
    ]
    assert main(command) == 0
    assert "submitted filter: SLURM job 1000\n" in capsys.readouterr().out
    given = job(slurm, "1000")["given"]
    assert (given["constraint"], given["exclusive"], given["time"]) == ("a&b", "", "04:00:00")
    script = (tmp_path / "out/.stages/run/filter/launch_script.slurm").read_text()
    assert ":$PATH; module load gcc\n" in script
    assert main(command) == 0
    assert "nothing was submitted: jobs of this run are pending or running\nfilter: SLURM job 1000\n" in (
        capsys.readouterr().out
    )


def test_the_help_states_the_defaults_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "curate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"memory of a task per core (default: {SETTINGS.memory_per_cpu_gb})" in told
    assert f"cores of a task (default: {SETTINGS.cpus_per_task})" in told
    assert f"limit of one task (default: {SETTINGS.time})" in told
