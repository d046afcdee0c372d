"""What the README and the guides tell people to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from megatron_salamandra.cli import build_parser
from megatron_salamandra.config import load_run_config
from megatron_salamandra.train import parse_arguments

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def code_blocks(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path, program: str) -> list[str]:
    """Lines of unmarked code blocks that start with ``program``; continued lines joined."""
    text = "\n".join(code_blocks(page)).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.startswith(program)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_salamandra_commands_parse(page: Path) -> None:
    for line in commands(page, "salamandra "):
        build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_commands_parse(page: Path) -> None:
    for line in commands(page, "torchrun "):
        words = shlex.split(line)
        parse_arguments(words[words.index("megatron_salamandra.train") + 1 :])


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (block,) = code_blocks(REPOSITORY / "README.md", "yaml")
    (tmp_path / "my-run.yaml").write_text(block)
    config = load_run_config(str(tmp_path / "my-run.yaml"), ["data.blend=blend.yaml", "run_dir=runs/my-run"])
    assert config.model.layers == 24
    config.validate_for_world(256)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_of_the_readme_exist() -> None:
    for line in commands(REPOSITORY / "README.md", "make "):
        done = subprocess.run(
            ["make", "--dry-run", *shlex.split(line)[1:]],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_sources_of_the_guides_are_those_of_the_code() -> None:
    from salamandra_data.demo.wheels import WHEELS

    guide = (REPOSITORY / "docs/guides/quickstart.md").read_text(encoding="utf-8")
    for wheel in WHEELS:
        assert f"| {wheel.name} | {wheel.version} | {wheel.licence} |" in guide
