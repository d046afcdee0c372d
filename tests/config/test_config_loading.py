"""Files, presets, overrides: which value wins, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from megatron_salamandra.config import ConfigError, RunConfig, load_run_config

Load = Callable[..., RunConfig]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_documented_ones(load: Load) -> None:
    config = load()
    assert (config.precision, config.platform, config.run_dir) == ("bf16", "auto", None)
    assert (config.model.rope_base, config.model.norm_eps, config.model.init_std) == (10000.0, 1e-5, 0.02)
    assert (config.optimizer.beta1, config.optimizer.beta2, config.optimizer.eps) == (0.9, 0.95, 1e-8)
    assert (config.checkpoint.keep_last, config.checkpoint.asynchronous) == (3, True)
    assert config.model.head_dim == 16


def test_query_groups_default_to_multi_head(load: Load) -> None:
    assert load("model.query_groups=null").model.groups == 8


def test_later_layers_win_key_by_key(tmp_path: Path, base_file: Path) -> None:
    write(tmp_path / "middle.yaml", "extends: base.yaml\ntraining: {seed: 5, grad_clip: 0.5}\n")
    top = write(tmp_path / "top.yaml", "extends: middle.yaml\ntraining:\n  seed: 6\n")
    config = load_run_config(str(top), ["training.steps=7", "optimizer.warmup_steps=0", "training.steps=8"])
    assert (config.training.seed, config.training.grad_clip, config.training.steps) == (6, 0.5, 8)
    assert config.origin_of("training.seed") == str(top)
    assert config.origin_of("training.grad_clip") == str(tmp_path / "middle.yaml")
    assert config.origin_of("training.steps") == "command line"
    assert config.origin_of("training.recompute") is None


def test_extends_resolves_relative_to_the_file_and_by_preset_name(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "a.yaml", "extends: salamandra-7b\nrun_dir: runs/a\n")
    top = write(tmp_path / "b.yaml", "extends: below/a.yaml\nparallel: {tensor: 2}\n")
    config = load_run_config(str(top))
    assert (config.model.name, str(config.run_dir), config.parallel.tensor) == ("salamandra-7b", "runs/a", 2)


def test_extends_in_a_circle_is_refused_with_the_way(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: c.yaml\n")
    write(tmp_path / "c.yaml", "extends: b.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml -> .*c\.yaml -> .*b\.yaml"):
        load_run_config(str(tmp_path / "a.yaml"))


def test_missing_parent_names_both_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "extends: salamandra-7B\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: extends = salamandra-7B: .*did you mean salamandra-7b"):
        load_run_config(str(path))
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_run_config(str(tmp_path / "none.yaml"))


def test_steps_and_tokens_replace_each_other_across_layers(load: Load, tmp_path: Path) -> None:
    config = load("training.tokens=204801")
    assert (config.training.steps, config.training.tokens) == (None, 204801)
    assert config.tokens_per_step == 32 * 64
    assert config.total_steps == 101  # rounded up to whole steps
    path = write(tmp_path / "tokens.yaml", "extends: base.yaml\ntraining: {tokens: 409600}\n")
    assert load_run_config(str(path)).total_steps == 200
    assert load_run_config(str(path), ["training.steps=12"]).total_steps == 12
    with pytest.raises(ConfigError, match="both set"):
        load("training.tokens=204800", "training.steps=100")


def test_length_is_required(load: Load) -> None:
    with pytest.raises(ConfigError, match="training.steps is missing"):
        load("training.steps=null")


def test_resolved_yaml_loads_to_an_equal_configuration(load: Load, tmp_path: Path) -> None:
    config = load("run_dir=runs/ü", "optimizer.lr=2e-5", "parallel.pipeline=2", "data.blend=a/blend.yaml")
    saved = write(tmp_path / "saved.yaml", config.to_yaml())
    again = load_run_config(str(saved))
    assert again == config
    assert hash(again) == hash(config)
    assert again.to_yaml() == config.to_yaml()


def test_configuration_is_immutable(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().training.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("written", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".2e-3", "2.e-4"])
def test_numbers_are_read_as_people_write_them(load: Load, written: str) -> None:
    assert load(f"optimizer.lr={written}").optimizer.lr == 2e-4


def test_norwegian_is_no_boolean(load: Load) -> None:
    assert load("model.name=no").model.name == "no"
    with pytest.raises(ConfigError, match=r"parallel.sequence = yes \(text\); expected true or false"):
        load("parallel.sequence=yes")


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.yaml", "training:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml:3: .*'seed' is written twice"):
        load_run_config(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "top level must be sections"),
        ("a: [1\n", "not readable as YAML"),
        ("extends: [a, b]\n", "expected one file name or preset name"),
        ("a: \x01\n", "not readable as YAML"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "broken.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_run_config(str(path))
    assert "broken.yaml" in str(caught.value)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"model: {name: \xe9}\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 at byte 14"):
        load_run_config(str(path))


def test_empty_sections_are_no_values(tmp_path: Path, base_file: Path) -> None:
    path = write(tmp_path / "empty.yaml", "extends: base.yaml\nmodel:\nparallel:\n  # all defaults\n")
    assert load_run_config(str(path)) == load_run_config(str(base_file))


def test_loading_never_imports_torch(base_file: Path) -> None:
    program = (
        "import sys; from megatron_salamandra.config import load_run_config; import megatron_salamandra.cli;"
        f"load_run_config({str(base_file)!r}, ['training.seed=2']).validate_for_world(4);"
        "megatron_salamandra.cli.build_parser(); import megatron_salamandra.planning;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'megatron.core', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_length_of_windows_is_read_where_earlier_versions_wrote_it(base_file: Path) -> None:
    """Run directories, checkpoints and files of users that name it ``model.sequence_length`` stay readable."""
    present = load_run_config(str(base_file))
    former = yaml.safe_load(present.to_yaml())
    former["model"]["sequence_length"] = former["data"].pop("sequence_length")
    path = base_file.with_name("former.yaml")
    path.write_text(yaml.safe_dump(former))
    assert load_run_config(str(path)) == present
    assert load_run_config(str(path), ["data.sequence_length=32"]).data.sequence_length == 32
    assert load_run_config(str(base_file), ["model.sequence_length=32"]).data.sequence_length == 32
    former["data"]["sequence_length"] = 32
    path.write_text(yaml.safe_dump(former))
    with pytest.raises(
        ConfigError, match=r"former.yaml: model.sequence_length has moved to data.sequence_length"
    ):
        load_run_config(str(path))


def test_a_missing_window_length_is_named_by_its_key(base_file: Path) -> None:
    base_file.write_text(base_file.read_text().replace("data: {sequence_length: 64}", ""))
    with pytest.raises(ConfigError, match="data.sequence_length is required but never set"):
        load_run_config(str(base_file))
