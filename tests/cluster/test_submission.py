"""What ``salamandra launch`` refuses before the queue, and the job that it writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG

from megatron_salamandra.cli import main
from megatron_salamandra.config import load_run_config
from megatron_salamandra.run_directory import RunDirectory, own

SBATCH = """#!/bin/bash
echo "$@" >> {calls}
case " $* " in
  *" --test-only "*) {test_only} ;;
  *) echo 4242 ;;
esac
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that notes its calls; returns where."""
    programs = tmp_path / "bin"
    programs.mkdir()
    calls = tmp_path / "calls"
    (tmp_path / "calls.txt").touch()
    write_sbatch(programs, calls)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.chdir(tmp_path)
    return calls


def write_sbatch(programs: Path, calls: Path, test_only: str = "exit 0") -> None:
    program = programs / "sbatch"
    program.write_text(SBATCH.format(calls=calls, test_only=test_only))
    program.chmod(program.stat().st_mode | stat.S_IEXEC)


def launch(blend: Path, *arguments: str, cluster: str = "generic") -> int:
    return main(
        [
            *("launch", str(SMALL_CONFIG), f"data.blend={blend}", "run_dir=runs/a b", "training.steps=40"),
            *("training.global_batch_size=8", f"--cluster={cluster}", "--nodes=1", *arguments),
        ]
    )


def test_a_sound_run_is_submitted_once_with_everything_in_its_directory(
    queue: Path, blend: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(blend, "--account=bsc88", "--spares=1", "--time=12:00:00") == 0
    place = tmp_path / "runs/a b/launch/0001"
    script = (place / "job.sh").read_text()
    for line in (
        "--nodes=2",
        "--ntasks-per-node=4",
        "--account=bsc88",
        "--time=12:00:00",
        "--signal=B:USR1@120",
        "--requeue",
        "--no-kill",
        f'--output="{tmp_path}/runs/a b/logs/job-%j.log"',  # sbatch cuts at a space that is not between quotes
    ):
        assert f"#SBATCH {line}\n" in script
    assert script.rstrip().splitlines()[-1].startswith("exec ")
    assert load_run_config(str(place / "config.yaml")).total_steps == 40
    assert [call.split()[0] for call in queue.read_text().splitlines()] == ["--test-only", "--parsable"]
    assert "job 4242" in capsys.readouterr().out


def test_a_dry_run_asks_sbatch_and_submits_nothing(queue: Path, blend: Path) -> None:
    assert launch(blend, "--dry-run") == 0
    assert launch(blend, "--dry-run") == 0
    assert [call.split()[0] for call in queue.read_text().splitlines()] == ["--test-only"] * 2
    assert sorted(path.name for path in Path("runs/a b/launch").iterdir()) == ["0001", "0002"]


def test_a_chain_waits_for_its_first_job(queue: Path, blend: Path) -> None:
    assert launch(blend, "--chain=3") == 0
    assert queue.read_text().count("--dependency=afterany:4242") == 2
    assert "--chained" in Path("runs/a b/launch/0001/job.sh").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["training.stepz=3"], "did you mean training.steps"),
        (["--cluster=marenostrum"], "did you mean marenostrum5"),
        (["training.global_batch_size=6"], "does not divide by training.micro_batch_size"),
        (["data.blend=none.yaml"], "none.yaml"),
        (["--time=5"], "--time 5: 300 s are not enough"),
        (["--time=soon"], "'soon' is not a time"),
        (["--time=4-00:00:00", "--cluster=marenostrum5"], "is more than marenostrum5 allows"),
        (["--nodes=0"], "--nodes"),
        (["run_dir=calls.txt/run"], "calls.txt cannot be written"),
    ],
)
def test_what_would_fail_is_refused_and_nothing_is_submitted(
    queue: Path, blend: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = launch(blend, *arguments)
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not queue.exists() or "--parsable" not in queue.read_text()
    assert not Path("runs").exists()


def test_memory_that_does_not_fit_is_refused_unless_forced(
    queue: Path, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = [
        "model.hidden_size=16384",
        "model.ffn_hidden_size=65536",
        "model.layers=8",
        "checkpoint.keep_last=1",
    ]
    more = [*large, "platform=auto", "--cluster=leonardo-booster"]
    assert launch(blend, *more) == 2
    told = capsys.readouterr().err
    assert "memory of a A100 64 GB does not fit: pipeline rank 0 needs " in told and "GiB of 64 (" in told


def test_all_reasons_are_told_at_once(queue: Path, blend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(blend, "data.blend=none.yaml", "--time=5") == 2
    told = capsys.readouterr().err
    assert "none.yaml" in told and "--time 5" in told


def test_a_run_that_lives_is_not_started_again(
    queue: Path, blend: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with own(RunDirectory(tmp_path / "runs/a b")):
        assert launch(blend) == 2
    assert "is being used by" in capsys.readouterr().err


def test_sbatchs_own_refusal_is_told(queue: Path, blend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sbatch(queue.parent / "bin", queue, "echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    assert launch(blend) == 2
    assert "sbatch refuses the job: Invalid qos specification" in capsys.readouterr().err
