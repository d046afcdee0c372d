"""What the README and the quick start's guide say is so."""

from __future__ import annotations

from pathlib import Path

from pages import REPOSITORY, blocks

from megatron_salamandra.config import load_run_config
from salamandra_data.demo.wheels import WHEELS


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(REPOSITORY / "README.md") if block.language == "yaml")
    (tmp_path / "my-run.yaml").write_text(block.text)
    config = load_run_config(str(tmp_path / "my-run.yaml"), ["data.blend=blend.yaml", "run_dir=runs/my-run"])
    assert config.model.layers == 24
    config.validate_for_world(256)


def test_sources_of_the_guides_are_those_of_the_code() -> None:
    guide = (REPOSITORY / "docs/guides/quickstart.md").read_text(encoding="utf-8")
    for wheel in WHEELS:
        assert f"| {wheel.name} | {wheel.version} | {wheel.licence} |" in guide
