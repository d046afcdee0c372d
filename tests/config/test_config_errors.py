"""Every refusal names the file, the key, the value, and what would work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_salamandra.config import ConfigError, RunConfig, load_run_config

Load = Callable[..., RunConfig]

REFUSED = {
    # unknown keys
    "model.layer=4": ["model.layer is not a known key", "did you mean model.layers?"],
    "paralel.tensor=2": ["paralel is not a known key", "did you mean parallel?"],
    "tensor=2": ["tensor is not a known key", "did you mean parallel.tensor?"],
    "training.lr=1": ["training.lr is not a known key", "did you mean optimizer.lr?"],
    "data.zzz=1": ["data.zzz is not a known key", "keys of data: blend, "],
    # types
    "model.layers=four": ["model.layers = four (text); expected a whole number"],
    "model.layers=4.5": ["model.layers = 4.5 (a number); expected a whole number"],
    "model.layers=true": ["model.layers = true (true or false); expected a whole number"],
    "model.layers=": ["model.layers = null (nothing); expected a whole number"],
    "model=3": ["model = 3 (a whole number); expected a section"],
    "model.name=[a]": ["model.name = ['a'] (a list); expected text"],
    "optimizer.lr=.nan": ["optimizer.lr = nan (a number); expected a finite number"],
    "optimizer.lr=.inf": ["optimizer.lr = inf (a number); expected a finite number"],
    "run_dir=3": ["run_dir = 3 (a whole number); expected a path"],
    "precision=fp16": ["precision = fp16 (text); expected one of 'bf16', 'fp32'"],
    # ranges
    "optimizer.warmup_steps=-1": ["optimizer.warmup_steps = -1", "expected at least 0"],
    "optimizer.beta2=1.0": ["optimizer.beta2 = 1.0", "expected below 1"],
    "parallel.tensor=0": ["parallel.tensor = 0", "expected at least 1"],
    # data
    "data.new_text=[en]": ["data.new_text = en has no effect without data.continue_from", "=RUN_DIR"],
    "data.new_text=[1] data.continue_from=a": ["data.new_text.0 = 1 (a whole number); expected text"],
    "run_dir=runs/a data.continue_from=runs/b/../a/checkpoints": [
        "data.continue_from = runs/b/../a/checkpoints is this run itself, or lies in it: run_dir = runs/a",
        "a later phase needs a run_dir of its own",
    ],
    # kernels
    "kernels.rope=triton": ["kernels.rope = triton (text); expected one of 'fused', 'reference'"],
    "kernels.loss=reference training.z_loss=1e-4": ["kernels.loss = reference has no z-loss", "0.0001"],
    "kernels.loss=reference kernels.loss_chunk_tokens=8": [
        "loss_chunk_tokens = 8 needs kernels.loss = fused"
    ],
    "model.rope_scaling.factor=4 model.rope_scaling.original_sequence_length=8 "
    "model.rope_scaling.low_frequency_factor=4": ["low_frequency_factor = 4 is not below", "Llama 3 uses"],
    # shape
    "model.attention_heads=6": ["model.attention_heads = 6 does not divide model.hidden_size = 128"],
    "model.attention_heads=128": ["128 / 128 = 1, which is odd"],
    "model.query_groups=3": [
        "model.query_groups = 3 does not divide model.attention_heads = 8",
        ": 1, 2, 4, 8",
    ],
    # tensor and sequence parallelism
    "parallel.tensor=8": [
        "parallel.tensor = 8 does not divide model.query_groups = 4",
        "parallel.tensor: 1, 2, 4",
    ],
    "parallel.tensor=3": ["does not divide model.attention_heads = 8", "model.vocab_size = 1024"],
    "parallel.sequence=true": ["no effect with parallel.tensor = 1", "parallel.tensor is a default"],
    "parallel.tensor=2 parallel.sequence=true data.sequence_length=63": [
        "parallel.tensor = 2 does not divide data.sequence_length = 63"
    ],
    # pipeline
    "parallel.pipeline=3": ["parallel.pipeline = 3 does not divide model.layers = 8", "stages: 1, 2, 4, 8"],
    "parallel.pipeline=2 parallel.virtual_pipeline=3": [
        "parallel.pipeline = 2 times parallel.virtual_pipeline = 3 does not divide model.layers = 8"
    ],
    "parallel.virtual_pipeline=2": ["parallel.virtual_pipeline = 2 needs parallel.pipeline above 1"],
    "parallel.pipeline=2 parallel.pipeline_layout=Et*4|t*3L": [
        "holds 4 + 3 = 7 layers, but model.layers = 8"
    ],
    "parallel.pipeline=2 parallel.pipeline_layout=Et*4|t*2|t*2L": [
        "has 3 stages",
        "parallel.pipeline = 2 asks for 2",
    ],
    "parallel.pipeline=2 parallel.pipeline_layout=Et*4|m*4L": ["has 'm' in stage 1; only E, t, L"],
    "parallel.pipeline=2 parallel.pipeline_layout=t*4|t*4L": ["must start with its only E"],
    "parallel.pipeline=2 parallel.pipeline_layout=Et*4|Lt*4": ["must end with its only L"],
    # batch
    "training.micro_batch_size=3": [
        "training.micro_batch_size = 3 does not divide training.global_batch_size = 32"
    ],
    # schedule
    "optimizer.min_lr=0.1": ["optimizer.min_lr = 0.1 is above the peak optimizer.lr = 0.001"],
    "training.steps=10": ["optimizer.warmup_steps = 10 is not below the 10 steps", "was set in command line"],
    "optimizer.schedule=wsd": ["needs optimizer.decay_steps", "allowed: 1 to 90 steps"],
    "optimizer.schedule=wsd optimizer.decay_steps=91": [
        "is more than the 100 steps",
        "allowed: 1 to 90 steps",
    ],
    "optimizer.decay_steps=5": ["no effect with optimizer.schedule = cosine"],
    "optimizer.overlap_param_gather=true": ["needs optimizer.overlap_grad_reduce = true"],
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_refused_with_key_value_and_remedy(load: Load, overrides: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides.split())
    for fragment in REFUSED[overrides]:
        assert fragment in str(caught.value)


def test_the_file_that_set_the_value_is_blamed(tmp_path: Path, base_file: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: base.yaml\nparallel:\n  tensor: 8\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run_config(str(path))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: parallel.tensor = 8 does not divide model.query_groups = 4"
    assert lines[1] == "  allowed for parallel.tensor: 1, 2, 4"
    assert lines[2] == f"  model.query_groups was set in {base_file}"


def test_all_problems_are_told_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("model.layers=x", "optimizer.beta1=2", "nothing=1")
    assert str(caught.value).count("command line:") == 3


def test_missing_keys_are_named_with_the_file_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "nothing.yaml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"nothing\.yaml: model is required but never set"):
        load_run_config(str(path))


@pytest.mark.parametrize("argument", ["--parallel.tensor=2", "parallel.tensor", "=2", "a..b=1", "a-b=1", ""])
def test_an_argument_that_is_no_override_is_refused(load: Load, argument: str) -> None:
    with pytest.raises(ConfigError, match="is not an override"):
        load(argument)


def test_an_override_inside_a_plain_value_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="goes inside a key that was given a plain value"):
        load("training=3", "training.seed=4")


def test_a_mapping_replaced_by_a_value_and_back_keeps_only_the_last(load: Load) -> None:
    assert load("parallel={tensor: 2}", "parallel.sequence=true").parallel.sequence


def test_contradictions_are_also_refused_without_files(load: Load) -> None:
    values = load().to_dict()
    values["parallel"]["tensor"] = 3
    with pytest.raises(ValueError, match="parallel.tensor = 3 does not divide"):
        RunConfig.model_validate(values, strict=False)
