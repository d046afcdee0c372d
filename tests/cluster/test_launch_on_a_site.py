"""``salamandra launch`` on a site whose SLURM answers: what it asks, refuses and leaves behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from rank_jobs import SMALL_CONFIG
from slurm_site_stand_in import NODES, SiteStandIn

from megatron_salamandra.cli import main
from megatron_salamandra.cluster import slurm_command, submission
from megatron_salamandra.cluster.run_state import Pace


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteStandIn:
    made = SiteStandIn(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs), prepend=":")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return made


def launch(blend: Path | str, *arguments: str, run_dir: str = "runs/mine") -> int:
    try:
        return main(
            [
                *(
                    "launch",
                    str(SMALL_CONFIG),
                    f"data.blend={blend}",
                    f"run_dir={run_dir}",
                    "training.steps=40",
                ),
                *("training.global_batch_size=8", "--cluster=marenostrum5", "--nodes=1", *arguments),
            ]
        )
    except SystemExit as end:  # argparse
        return int(end.code or 0)


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Each was found by nodes that had waited for days, or by nobody.
        (["--time=10"], "--time 10: 600 s are not enough for a start (600 s) and a stop with a save (120 s)"),
        (["training.stepz=3"], "did you mean training.steps"),
        (["training.global_batch_size=6"], "does not divide by training.micro_batch_size"),
        (["data.blend=none.yaml"], "none.yaml"),
        (["--nodes=13"], "13 nodes are more than partition acc has\n  at most 12"),
        (["--account=bsc99"], "account bsc99: "),
        (["--qos=acc_xehpc"], "qos acc_xehpc: "),
        (["--sbatch=partition=accc"], "did you mean acc?"),
        (["--sbatch=constraint=fastest"], "constraint fastest: no node of partition acc has fastest"),
        (["--sbatch=array=0-3"], "a run is one job"),
        (["--sbatch=mem=lots"], "mem=lots is not an amount of memory"),
        (["--container=./image.sif"], "--container ./image.sif does not exist"),
        (["--chain=21"], "lets 20 jobs be in the queue"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert launch(blend, *arguments) == 2
    assert message in capsys.readouterr().err
    assert files() == []
    assert not any("--parsable" in line for line in site.asked("sbatch"))


def test_nodes_of_another_shape_than_the_profiles(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.set("sinfo", "--noheader", NODES.replace("|80|", "|32|"))
    assert launch(blend) == 2
    assert "80 CPUs of a node are asked for, and nodes of partition acc have 32" in capsys.readouterr().err


def test_all_reasons_are_told_at_once(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("none.yaml", "--account=bsc99", "--nodes=13", "training.global_batch_size=104") == 2
    told = capsys.readouterr().err
    for reason in ("none.yaml", "account bsc99", "13 nodes are more"):
        assert reason in told


def test_sbatchs_refusal_is_told_with_the_others(
    site: SiteStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refuse("sbatch: error: Batch job submission failed: Access denied by reservation\n")
    assert launch("none.yaml") == 2
    told = capsys.readouterr().err
    assert (
        "none.yaml" in told and "sbatch refuses the job: Batch job submission failed: Access denied" in told
    )


def test_a_refusal_of_the_submission_itself_takes_back_what_was_written(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.refuse("sbatch: error: Job violates accounting/QOS policy\n", in_trial=False)
    Path("runs").mkdir()
    assert launch(blend) == 2
    assert "Job violates accounting/QOS policy" in capsys.readouterr().err
    assert files() == ["runs"]  # which was there before


def test_force_overrides_estimates_says_so_and_overrides_nothing_else(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(blend, "--time=5") == 2
    assert "--force submits it all the same" in capsys.readouterr().err
    assert launch(blend, "--time=5", "--force") == 0
    assert "--force: submitted although --time 5: 300 s are not enough" in capsys.readouterr().out
    assert launch(blend, "--time=5", "--account=bsc99", "--force") == 2
    assert "account bsc99" in capsys.readouterr().err


def test_a_launch_is_complete_in_its_directory_and_relative_paths_are_the_callers(
    site: SiteStandIn, blend: Path, tmp_path: Path
) -> None:
    Path("configs").mkdir()
    Path("configs/mine.yaml").write_text(SMALL_CONFIG.read_text())
    run = [
        "configs/mine.yaml",
        f"data.blend={os.path.relpath(blend)}",
        "run_dir=runs/my run",
        "training.global_batch_size=8",
    ]
    options = ["--cluster=marenostrum5", "--nodes=1", "--account=bsc88", "--time=12:00:00"]
    code = main(["launch", *run, *options])
    assert code == 0
    place = tmp_path / "here/runs/my run/launch/0001"
    assert sorted(path.name for path in place.iterdir()) == [
        *("command", "config.yaml", "job.sh", "jobs", "profile.yaml", "revision")
    ]
    script = (place / "job.sh").read_text()
    assert f"#SBATCH --chdir={tmp_path}/here\n" in script
    assert f'#SBATCH --output="{tmp_path}/here/runs/my run/logs/job-%j.log"\n' in script
    assert (tmp_path / "here/runs/my run/logs").is_dir()  # SLURM makes no directory for a log
    assert f"cd {tmp_path}/here\n" in (place / "command").read_text()
    assert (place / "jobs").read_text() == "4242\n"
    assert (place / "revision").read_text().strip()
    subprocess.run(["bash", "-n", str(place / "job.sh")], check=True)


def test_each_job_of_a_chain_waits_for_the_one_before(site: SiteStandIn, blend: Path) -> None:
    assert launch(blend, "--chain=3") == 0
    waits = [line.split("afterany:")[1].split()[0] for line in site.asked("sbatch") if "afterany" in line]
    assert waits == ["4242", "4243"]
    assert Path("runs/mine/launch/0001/jobs").read_text().split() == ["4242", "4243", "4244"]


def test_the_signal_comes_as_long_before_the_limit_as_the_runs_own_saves_take(
    site: SiteStandIn, blend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("runs/mine").mkdir(parents=True)
    monkeypatch.setattr(submission, "pace", lambda directory: Pace(10.0, 200.0, None))
    assert launch(blend) == 0
    assert "#SBATCH --signal=B:USR1@620\n" in Path("runs/mine/launch/0001/job.sh").read_text()


QUOTA_OF_QUOTA = (
    "Disk quotas for user me (uid 1000): \n     Filesystem  blocks   quota   limit   grace   files   quota   "
    "limit   grace\n{place}  1000    {limit}   {limit}       0      10       0       0       0\n"
)
QUOTA_OF_LUSTRE = " {place}\n               1000*    0   {limit}       -     10       0       0       -\n"
QUOTA_OF_SCALE = (
    "mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:blockQuota:blockLimit:"
    "blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:filesInDoubt:filesGrace:\n"
    "mmlsquota::0:1:::fs:USR:1000:me:1000:{limit}:{limit}:0:none:10:0:0:0:none:\n"
)


@pytest.mark.parametrize(
    ("program", "answer"),
    [("quota", QUOTA_OF_QUOTA), ("lfs", QUOTA_OF_LUSTRE), ("mmlsquota", QUOTA_OF_SCALE)],
)
def test_a_quota_that_checkpoints_would_pass_is_refused(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str], program: str, answer: str
) -> None:
    from megatron_salamandra.cluster.quota import _mount

    def let(limit: int) -> None:
        text = answer.format(place=_mount(Path.cwd())[1], limit=limit)
        site.install(program, f"#!/bin/bash\ncat <<'X'\n{text}X\n")

    let(1200)
    assert launch(blend) == 2
    told = capsys.readouterr().err
    assert "your quota at" in told and f"({program} " in told
    let(100_000_000)
    assert launch(blend) == 0


def test_nothing_hangs_when_sbatch_or_a_quota_command_does(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_salamandra.cluster import quota

    monkeypatch.setattr(quota, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(slurm_command, "ANSWER_SECONDS", 1.0)
    site.install("quota", "#!/bin/bash\nsleep 100\n")
    site.install("sbatch", "#!/bin/bash\nsleep 100\n")
    assert launch(blend) == 2
    told = capsys.readouterr().err
    assert "quota -wp: no answer in 0.3 s" in told
    assert "--test-only" in told and "no answer in 1 s" in told
    assert files() == []


def test_a_submission_that_does_not_answer_may_have_arrived_and_that_is_said(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_command, "ANSWER_SECONDS", 1.0)
    site.install("sbatch", '#!/bin/bash\n[[ "$*" == *--test-only* ]] || sleep 100\n')
    assert launch(blend) == 1
    assert "the job may be in the queue or not" in capsys.readouterr().err
    assert Path("runs/mine/launch/0001/job.sh").exists()


def test_a_site_that_forbids_requeueing_is_told_to_chain(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = Path("mine.yaml")
    profile.write_text(
        "name: mine\ndescription: d\nnode: {gpus: 4, cpus: 80}\ntasks_per_node: 4\ncpus_per_task: 20\n"
        "limits: {may_requeue: false}\nsbatch: {partition: acc}\n"
    )
    assert launch(blend, "--cluster=mine.yaml") == 0
    assert "--chain N lets N jobs follow on each other" in capsys.readouterr().out
    assert "#SBATCH --no-requeue\n" in Path("runs/mine/launch/0001/job.sh").read_text()


def test_a_dry_run_without_slurm_writes_the_script_and_says_what_was_not_checked(
    site: SiteStandIn, blend: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert launch(blend, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "account and qos: could not be checked: sacctmgr is not on this machine" in said
    assert Path("runs/mine/launch/0001/job.sh").exists()
    assert launch(blend, run_dir="runs/other") == 2
    assert not Path("runs/other").exists()
