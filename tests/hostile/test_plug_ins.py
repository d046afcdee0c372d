"""Code is imported by a path that the user wrote in this run's configuration, and by no other."""

from __future__ import annotations

import yaml
from rank_jobs import train_without_importing
from training_runs import TrainingRuns

from megatron_salamandra.run_directory import describe_files, write_manifest

SHORT = ["training.steps=4", "optimizer.warmup_steps=1", "checkpoint.every_steps=2"]


def test_a_resume_imports_nothing_that_only_the_checkpoint_names(runs: TrainingRuns) -> None:
    name = "stored-plug-in"
    assert runs.train(name, 1, *SHORT, "training.stop_after_steps=2") == 75
    step = runs.checkpoint(name, 2)
    config = yaml.safe_load((step / "config.yaml").read_text())
    config["callbacks"] = [
        {"path": "hanging_callbacks:Hangs", "options": {"way": "loop", "step": 3, "rank": 0}}
    ]
    (step / "config.yaml").write_text(yaml.safe_dump(config))
    files = [str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()]
    write_manifest(step, describe_files(step, [file for file in files if file != "manifest.json"]))
    overrides = [f"data.blend={runs.blend}", f"run_dir={runs.root / name}", *SHORT]
    assert runs.pool.run(1, train_without_importing, "hanging_callbacks", overrides) == [0]
    assert [entry["step"] for entry in runs.metrics(name)] == [1, 2, 3, 4]
