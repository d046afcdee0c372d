"""``salamandra launch -- COMMAND``: any command as a cluster job, with the checks and the rounds of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_site_stand_in import SiteStandIn

from megatron_salamandra import slurm_task
from megatron_salamandra.cli import main
from megatron_salamandra.cluster import read_reports

GENERATE = ("generate", "--hf", "exports/a b", "--prompt", "Bon dia")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteStandIn:
    made = SiteStandIn(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made


def launch(*options: str, command: tuple[str, ...] = GENERATE) -> int:
    return main(["launch", "--cluster=marenostrum5", "--time=1:00:00", *options, "--", *command])


def test_a_command_gets_a_node_of_the_profile_and_a_directory_of_its_own(
    site: SiteStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("--account=bsc88") == 0
    assert launch("--tasks=4") == 0
    first, second = (Path(f"jobs/generate-000{number}/launch/0001/job.sh").read_text() for number in (1, 2))
    assert "#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=80\n" in first
    assert "#SBATCH --ntasks-per-node=4\n#SBATCH --cpus-per-task=20\n" in second
    assert first.rstrip().endswith("-- generate --hf 'exports/a b' --prompt 'Bon dia'")
    assert "stop it: scancel 4242" in capsys.readouterr().out
    assert not Path("jobs/generate-0001/launch/0001/config.yaml").exists()


def test_work_without_gpus_goes_where_the_profile_says(site: SiteStandIn) -> None:
    Path("mine.yaml").write_text(
        "name: mine\ndescription: d\nnode: {gpus: 4, cpus: 80}\ntasks_per_node: 4\ncpus_per_task: 20\n"
        "sbatch: {partition: acc, gres: 'gpu:4'}\nwithout_gpus: {partition: acc, qos: acc_debug, cpus-per-task: 40}\n"
    )
    assert launch("--cluster=mine.yaml", "--cpu") == 0
    script = Path("jobs/generate-0001/launch/0001/job.sh").read_text()
    assert "--qos=acc_debug" in script and "--cpus-per-task=40" in script and "gres" not in script


@pytest.mark.parametrize(
    ("options", "command", "message"),
    [
        ([], ("hf", "exprt"), "invalid choice: 'exprt'"),
        ([], ("hf", "export", "--checkpoint", "none", "--out", "x"), "none: no such directory"),
        ([], ("hf", "export", "--checkpoint", "none"), "the following arguments are required: --out"),
        ([], ("train", "tiny.yaml"), "salamandra launch CONFIG"),
        ([], ("generate", "--help"), "only shows help"),
        ([], ("-m", "no_such_module"), "there is no such module"),
        ([], ("-m",), "name a module"),
        (["--tasks=81"], GENERATE, "--tasks 81: a job of marenostrum5 has 80 cores"),
        (["--account=bsc99"], GENERATE, "account bsc99"),
        (["--nodes=13"], GENERATE, "13 nodes are more than partition acc has"),
        (["tiny.yaml"], GENERATE, "name a run's configuration, or a command, not both"),
        (["--no-node-check"], GENERATE, "--no-node-check is for runs"),
        (["--cluster=generic", "--cpu"], GENERATE, "does not say how jobs without GPUs are submitted"),
    ],
)
def test_what_could_not_run_is_refused_and_leaves_nothing_behind(
    site: SiteStandIn,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    command: tuple[str, ...],
    message: str,
) -> None:
    assert launch(*options, command=command) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().iterdir())
    assert not any("--parsable " in line for line in site.asked("sbatch"))


def test_a_directory_that_another_job_has_is_refused(
    site: SiteStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("--job-dir=mine") == 0
    assert launch("--job-dir=mine") == 2
    assert "--job-dir mine is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["tiny.yaml", "--nodes=1", "--tasks=2"], ["tiny.yaml"], ["--nodes=1"]])
def test_options_of_runs_and_of_commands_are_not_mixed(arguments: list[str]) -> None:
    assert main(["launch", "--cluster=generic", *arguments]) == 2


@pytest.fixture
def round_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALAMANDRA_ROUND_DIR", str(tmp_path))
    monkeypatch.setenv("SLURM_PROCID", "0")
    return tmp_path


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("print('fine')", 0, ""),
        ("import sys; sys.exit('no such task')", 1, "no such task"),
        ("import sys; sys.exit(3)", 3, ""),
        ("raise RuntimeError('out of memory')", 1, "RuntimeError: out of memory"),
        ("import sys; print('saved', file=sys.stderr); sys.exit(75)", 75, "saved"),
    ],
)
def test_the_supervisor_is_told_how_a_task_ended(
    round_dir: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: int, message: str
) -> None:
    (round_dir / "a_task.py").write_text(module)
    monkeypatch.syspath_prepend(str(round_dir))
    # 0 for "stopped with everything saved": srun would kill the others.
    assert slurm_task.main(["-m", "a_task"]) == (0 if code == 75 else code)
    (report,) = read_reports(round_dir)
    assert report.code == code
    assert report.message.endswith(message)


def test_a_commands_own_refusal_is_its_report(round_dir: Path) -> None:
    assert slurm_task.main(["hf", "export", "--checkpoint", "none", "--out", "x"]) != 0
    (report,) = read_reports(round_dir)
    assert "none: no such directory" in report.message
