"""What a user submits by hand or with ``salamandra launch``, on a real SLURM: each kind of job comes to its end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from declaration import ARTICLE_1
from rank_jobs import SMALL_CONFIG
from slurm_lab import REPOSITORY, Lab, laboratory
from small_checkpoints import random_weights, small_config, tokenizer_model, write_checkpoint
from training_runs import TrainingRuns

from megatron_salamandra.cluster import RoundBook, load_profile, profile_names
from megatron_salamandra.run_directory import MetricsLog, RunDirectory

__all__ = ["random_weights", "small_config", "tokenizer_model", "write_checkpoint"]
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LAUNCH = REPOSITORY / "launch"
# The lab's hosts have no GPU, and are shared.
SMALL = ("--gres=none", "--exclusive=user", "--time=30", "--ntasks-per-node=1", "--cpus-per-task=1")
PROFILE = (
    "name: lab\ndescription: d\nnode: {gpus: 0, cpus: 16}\ntasks_per_node: 1\ncpus_per_task: 1\n"
    "sbatch: {partition: main}\nwithout_gpus: {partition: main}\n"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    with laboratory(3, "pgid") as lab:
        yield lab


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user is: neither the repository nor a name without spaces."""
    directory = tmp_path / "my work"
    directory.mkdir()
    (directory / "lab.yaml").write_text(PROFILE)
    monkeypatch.chdir(directory)
    paths = (REPOSITORY, REPOSITORY / "data_prep", REPOSITORY / "kernels")
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SALAMANDRA_PYTHON", sys.executable)
    return directory


def log_of(job: str) -> str:
    return "\n".join(path.read_text() for path in Path().rglob(f"*{job}.log"))


def submit(lab: Lab, script: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    command = ("sbatch", "--parsable", *SMALL, *options, str(LAUNCH / script), *arguments)
    return lab.on("ctl", *command).strip()


def salamandra(lab: Lab, *arguments: str) -> str:
    return lab.on("ctl", sys.executable, "-m", "megatron_salamandra.cli", *arguments)


def submitted_job(said: str) -> str:
    return next(line.split()[1] for line in said.splitlines() if line.startswith("job "))


@pytest.mark.parametrize("how", ["sbatch", "launch"])
def test_a_tuning_goes_on_from_the_weights_of_another_run(
    cluster: Lab, here: Path, runs: TrainingRuns, blend: Path, how: str
) -> None:
    assert runs.train(f"tuned-from-{how}", 1, "training.steps=6") == 0
    tuning = (
        *(str(SMALL_CONFIG), f"data.blend={os.path.relpath(blend)}", "run_dir=tuned run", "training.steps=6"),
        f"initialize_from={os.path.relpath(runs.root / f'tuned-from-{how}')}",
    )
    if how == "sbatch":
        job = submit(cluster, "tune.sbatch", *tuning, options=("--nodes=2",))
    else:
        said = salamandra(cluster, "launch", *tuning, "--cluster=lab.yaml", "--nodes=2", "--time=30")
        job = submitted_job(said)
    assert cluster.end_of(job, 400) == "COMPLETED", log_of(job)
    steps = [record.step for record in MetricsLog(RunDirectory(here / "tuned run").metrics).read()]
    assert steps == list(range(1, 7))


def test_an_export(
    cluster: Lab,
    here: Path,
    write_checkpoint: Callable[..., Path],
    small_config: Callable[..., object],
    random_weights: Callable[..., object],
) -> None:
    config = small_config()
    write_checkpoint(here / "a run/checkpoints/step-00000020", config, random_weights(config))
    job = submit(cluster, "export.sbatch", "--checkpoint", "a run", "--out", "ex ports/mine")
    assert cluster.end_of(job, 240) == "COMPLETED", log_of(job)
    assert (here / "ex ports/mine/model.safetensors.index.json").exists()
    (rounds,) = RoundBook(here / f"jobs/salamandra-export-{job}").read()
    assert rounds.outcome.cause.value == "done"


def test_an_export_that_is_refused_ends_with_its_message_and_not_again_and_again(
    cluster: Lab, here: Path
) -> None:
    job = submit(cluster, "export.sbatch", "--checkpoint", "nowhere", "--out", "x", "--dtype", "float8")
    assert cluster.end_of(job, 240) == "FAILED"
    assert cluster.field(job, "ExitCode") == "2:0"
    assert "--dtype" in log_of(job)
    assert len(RoundBook(here / f"jobs/salamandra-export-{job}").read()) == 1


def harness(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the evaluation harness: every task writes where it stands and what it was told."""
    monkeypatch.setenv("PYTHONPATH", str(here))  # nothing is imported from the current directory unasked
    (here / "lm_eval").mkdir()
    (here / "lm_eval/__init__.py").touch()
    (here / "lm_eval/__main__.py").write_text(
        "import json, os, sys\n"
        "world = [os.environ.get(name) for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')]\n"
        "with open(f'result-{os.environ[\"SLURM_PROCID\"]}.json', 'w') as file:\n"
        "    json.dump([world, sys.argv[1:]], file)\n"
    )


def test_an_evaluation_by_several_tasks_of_a_node(
    cluster: Lab, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness(here, monkeypatch)
    job = submit(
        cluster, "evaluate.sbatch", "--model_args", "pretrained=my model", options=("--ntasks-per-node=2",)
    )
    assert cluster.end_of(job, 240) == "COMPLETED", log_of(job)
    for rank in range(2):
        world, arguments = json.loads((here / f"result-{rank}.json").read_text())
        assert world == [str(rank), str(rank), "2"]
        assert arguments == ["--model_args", "pretrained=my model"]


def test_a_command_by_launch(cluster: Lab, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness(here, monkeypatch)
    said = salamandra(
        cluster, "launch", "--cluster=lab.yaml", "--cpu", "--time=30", "--", "-m", "lm_eval", "a b"
    )
    assert cluster.end_of(submitted_job(said), 240) == "COMPLETED", log_of(submitted_job(said))
    assert json.loads((here / "result-0.json").read_text()) == [[None, None, None], ["a b"]]
    assert "account and qos: could not be checked" in said  # the lab has no accounting database


def test_a_run_by_launch_and_what_the_real_slurm_refuses(cluster: Lab, here: Path, blend: Path) -> None:
    (here / "mine.yaml").write_text(SMALL_CONFIG.read_text())
    run = ("mine.yaml", f"data.blend={os.path.relpath(blend)}", "run_dir=my run", "training.steps=5")
    site = ("launch", *run, "--cluster=lab.yaml", "--time=30")
    for arguments, message in (
        (("--nodes=4",), "4 nodes are more than partition main has\n  at most 3"),
        (("--nodes=1", "--sbatch=partition=man"), "partition man is not on this cluster"),
        (("--nodes=1", "--sbatch=constraint=h100"), "no node of partition main has h100"),
        (("--nodes=1", "--sbatch=cpus-per-task=20"), "20 CPUs of a node are asked for"),
        (("--nodes=1", "--sbatch=reservation=none"), "sbatch refuses the job: "),
    ):
        with pytest.raises(AssertionError) as refused:
            salamandra(cluster, *site, *arguments)
        assert message in str(refused.value).replace("\\n", "\n")
        assert not (here / "my run").exists()
    said = salamandra(cluster, *site, "--nodes=2")
    job = submitted_job(said)
    assert cluster.end_of(job, 300) == "COMPLETED", log_of(job)
    assert [record.step for record in MetricsLog(here / "my run/metrics.jsonl").read()] == [1, 2, 3, 4, 5]
    assert (here / f"my run/logs/job-{job}.log").exists()


def test_the_rest_of_a_chain_leaves_the_queue_when_the_run_is_done(
    cluster: Lab, here: Path, blend: Path
) -> None:
    run = (str(SMALL_CONFIG), f"data.blend={blend}", "run_dir=chained", "training.steps=5")
    said = salamandra(cluster, "launch", *run, "--cluster=lab.yaml", "--time=30", "--nodes=1", "--chain=3")
    first = submitted_job(said)
    jobs = (here / "chained/launch/0001/jobs").read_text().split()
    assert len(jobs) == 3 and jobs[0] == first
    assert cluster.end_of(first, 300) == "COMPLETED", log_of(first)
    assert [cluster.end_of(job) for job in jobs[1:]] == ["CANCELLED", "CANCELLED"]


def test_a_data_array_whose_task_is_killed_completes_by_itself(
    cluster: Lab, here: Path, tokenizer_model: Path
) -> None:
    pytest.importorskip("datatrove")
    text = [{"text": text, "language": language} for language, text in ARTICLE_1.items()] * 20
    (here / "part one.jsonl").write_text("".join(json.dumps(document) + "\n" for document in text))
    once = here / "killed once"
    job = submit(
        cluster,
        "data_array.sbatch",
        *("tokenize", "--input", "part one.jsonl", "--tokenizer", str(tokenizer_model), "--out", "my shards"),
        *("--cluster", "lab.yaml", "--tasks", "2", "--memory-per-cpu", "1", "--slurm-time", "30"),
        *(
            "--slurm-setup",
            f"export PYTHONPATH='{os.environ['PYTHONPATH']}'; [ -e '{once}' ] || "
            f"{{ touch '{once}'; kill -9 $$; }}",
        ),
        options=("--mem=1000",),
    )
    assert cluster.end_of(job, 400) == "COMPLETED", log_of(job)
    assert "is submitted again" in log_of(job)
    assert list((here / "my shards").glob("*-train-*.bin"))
    assert once.exists()


def test_the_requeue_drill_of_the_doctor(cluster: Lab, here: Path) -> None:
    said = salamandra(
        cluster,
        *("doctor", "--certify", "requeue", "--profile", "lab.yaml", "--nodes", "2", "--out", "my proofs"),
    )
    (made,) = json.loads((here / "my proofs/certificates.json").read_text())["certificates"]
    assert made["passed"], said
    assert made["proof"]["figures"]["rounds"] == ["stopped", "done"]


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_accepted_by_a_site_with_its_nodes(
    name: str, tmp_path: Path, blend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile(name)
    monkeypatch.chdir(tmp_path)
    shape = {
        "CPUS": str(profile.node.cpus),
        "GPUS": str(profile.node.gpus),
        "MEMORY": str(int(float(profile.sbatch.get("mem", 0)) or 100_000)),
        "PARTITION": profile.sbatch.get("partition", "main"),
    }
    with laboratory(1, "pgid", **shape) as lab:
        run = (str(SMALL_CONFIG), f"data.blend={blend}", "run_dir=run", "training.global_batch_size=8")
        said = salamandra(
            lab, "launch", *run, f"--cluster={name}", "--nodes=1", "--time=12:00:00", "--dry-run"
        )
        assert "not submitted" in said
