"""Every YAML that is shipped loads, and the presets carry the published numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from megatron_salamandra.config import RunConfig, load_run_config, preset_names, presets_directory
from salamandra_data.blend_plan import LanguageFactors

ROOT = Path(__file__).resolve().parents[2]
RECIPE = presets_directory() / "data" / "salamandra-pretraining.yaml"

# github.com/langtech-bsc/salamandra, bsc_{2b,7b}.yaml at b85b206 and bsc_40b.yaml at adcd466.
PUBLISHED = {
    "salamandra-2b": {
        "model": (24, 2048, 5440, 16, 16, 256000, 8192, 0.014),
        "batch": (1, 512, 3016817),
        "rates": (2e-4, 2e-5),
        "layout": (1, 1, False),
        "world": (256, 256, 2),
        "every": 5000,
    },
    "salamandra-7b": {
        "model": (32, 4096, 11008, 32, 8, 256000, 8192, 0.02),
        "batch": (2, 512, 3016817),
        "rates": (3e-4, 3e-5),
        "layout": (4, 1, True),
        "world": (512, 128, 2),
        "every": 5000,
    },
    "salamandra-40b": {
        "model": (48, 8192, 24576, 64, 8, 256000, 4096, 0.007),
        "batch": (1, 1024, 2194040),
        "rates": (5e-5, 9e-6),
        "layout": (4, 2, True),
        "world": (1024, 128, 8),
        "every": 2000,
    },
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_by_name_and_by_path(name: str) -> None:
    assert load_run_config(name) == load_run_config(str(presets_directory() / f"{name}.yaml"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_the_published_hyperparameters(name: str) -> None:
    config, published = load_run_config(name), PUBLISHED[name]
    model, training, optimizer = config.model, config.training, config.optimizer
    assert published["model"] == (
        model.layers,
        model.hidden_size,
        model.ffn_hidden_size,
        model.attention_heads,
        model.groups,
        model.vocab_size,
        config.data.sequence_length,
        model.init_std,
    )
    assert model.head_dim == 128
    assert (model.rope_base, model.norm_eps) == (10000.0, 1e-5)
    assert published["batch"] == (training.micro_batch_size, training.global_batch_size, training.steps)
    assert config.tokens_per_step == 4_194_304
    assert (training.seed, training.grad_clip, training.recompute) == (1234, 1.0, "selective")
    assert published["rates"] == (optimizer.lr, optimizer.min_lr)
    assert (optimizer.schedule, optimizer.warmup_steps) == ("cosine", 2000)
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (0.9, 0.95, 0.1)
    assert published["layout"] == (config.parallel.tensor, config.parallel.pipeline, config.parallel.sequence)
    assert config.precision == "bf16"
    assert published["every"] == config.checkpoint.every_steps == config.validation.every_steps
    assert config.checkpoint.keep_last == 200
    world, data, micro_batches = published["world"]  # type: ignore[misc]
    layout = config.validate_for_world(world)
    assert (layout.data_parallel_size, layout.micro_batches_per_step) == (data, micro_batches)


@pytest.mark.parametrize("steps", [1, 2, 20, 100000])
def test_tiny_is_valid_for_any_number_of_steps(steps: int) -> None:
    assert load_run_config("tiny", [f"training.steps={steps}"]).total_steps == steps


LAYOUTS = {
    "1 rank": (1, []),
    "TP2": (2, ["parallel.tensor=2"]),
    "TP2+SP": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "PP2": (2, ["parallel.pipeline=2"]),
    "PP2 VPP2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    "DP2": (2, []),
    "DP4": (4, []),
    "TP2 PP2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    "TP2 PP2 DP2": (8, ["parallel.tensor=2", "parallel.pipeline=2"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tiny_fits_the_layouts_it_is_compared_in(name: str) -> None:
    world, overrides = LAYOUTS[name]
    load_run_config("tiny", overrides).validate_for_world(world)


def test_recipe_has_the_published_factors_and_shares() -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    languages = recipe["languages"]
    assert recipe["default_factor"] == 1
    assert len(languages) == 36
    assert all(isinstance(name, str) for name in languages)
    halved = {name for name, row in languages.items() if row["factor"] == 0.5}
    doubled = {name for name, row in languages.items() if row["factor"] == 2}
    assert halved == {"en", "code"}
    assert doubled == {"es", "ca", "eu", "gl"}
    for corpus in ("corpus_a", "corpus_b"):
        assert sum(row[corpus] for row in languages.values()) == pytest.approx(100.0, abs=1e-3)
    co_official = [sum(languages[name][corpus] for name in doubled) for corpus in ("corpus_a", "corpus_b")]
    assert co_official == pytest.approx([19.1, 18.2], abs=0.05)


def test_recipe_is_read_by_the_blend_command() -> None:
    factors = LanguageFactors.load(RECIPE)
    assert [factors.factor(name) for name in ("en", "ca", "no", "xx")] == [Fraction(1, 2), 2, 1, 1]


def test_every_key_says_what_it_means() -> None:
    for name, info in RunConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            for inner, inner_info in info.annotation.model_fields.items():
                assert inner_info.description, f"{name}.{inner}"
        else:
            assert info.description, name


@pytest.mark.slow
def test_presets_resolve_from_a_wheel(tmp_path: Path) -> None:
    """A wheel alone, far from the source tree, knows ``extends: salamandra-7b``."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in ("megatron_salamandra", "kernels", "data_prep", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: salamandra-7b\nparallel: {tensor: 2}\n", encoding="utf-8")
    program = (
        "from megatron_salamandra.config import load_run_config, presets_directory;"
        f"config = load_run_config({str(mine)!r});"
        "print(presets_directory(), config.model.name, config.parallel.tensor);"
        "assert (presets_directory() / 'data' / 'salamandra-pretraining.yaml').is_file();"
        "import salamandra_data, salamandra_kernels"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [str(site / "megatron_salamandra" / "presets"), "salamandra-7b", "2"]
