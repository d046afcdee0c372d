"""A page of documentation, followed: its files are written, its commands run as printed or, where they cannot, checked.

Numbers that no test could wait for are made smaller by :data:`SMALLER`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import yaml
from followed_pages import run_shell
from pages import REPOSITORY, Block, blocks

from megatron_salamandra.cli import build_parser
from megatron_salamandra.config import load_run_config
from megatron_salamandra.train import parse_arguments

# As printed, and what runs here.
SMALLER = (
    ("--vocab-size 256000", "--vocab-size 512"),
    ("--bytes-budget 100000000", "--bytes-budget 40000"),
    ("--shard-tokens 100000000", "--shard-tokens 1000"),
    ("--workers 16", "--workers 2"),
    ("--nproc-per-node 8", "--nproc-per-node 1"),
    ("step-00005000", "step-00000002"),
    ("--step 1200", "--step 2"),
    ("--max-new-tokens 64", "--max-new-tokens 2"),
    ("max_new_tokens=40", "max_new_tokens=2"),
)
# Installs, submits or takes for ever; what they are told is checked.
NEVER_RUN = ("make", "pip", "git", "sbatch")
_WRITTEN = re.compile(r"(?:--out[ =]|run_dir=)(\S+)")


@dataclass(frozen=True)
class FollowedPage:
    """What following a page left.

    Attributes:
        printed: what the commands of each block printed, in the order of :func:`pages.blocks`; empty for other blocks.
    """

    directory: Path
    printed: tuple[str, ...]


def follow_page(page: Path, prepared: Path, directory: Path) -> FollowedPage:
    """Follow ``page`` in ``directory``, a copy of ``prepared`` without what the page itself makes.

    Raises:
        AssertionError: a block cannot be followed; the message says which.
    """
    shutil.copytree(prepared, directory, symlinks=True)
    for block in blocks(page):
        if block.is_shell and block.not_run is None:
            for place in _WRITTEN.findall(block.text):
                _remove(directory / place)
    printed = []
    for block in blocks(page):
        try:
            printed.append(_follow(block, directory))
        except AssertionError as error:
            raise AssertionError(f"{page.relative_to(REPOSITORY)}:{block.line}: {error}") from None
    return FollowedPage(directory, tuple(printed))


def _follow(block: Block, directory: Path) -> str:
    """Do what a block shows; returns what its commands print."""
    if block.is_shell:
        printed = ""
        for command in block.commands():
            if block.not_run is not None or _program(command) in NEVER_RUN:
                _check_unrun(command)
            else:
                printed += run_shell(_smaller(command), directory)
        return printed
    elif block.language in ("python", "yaml") and block.file_name is not None:
        place = directory / block.file_name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_smaller(block.text), encoding="utf-8")
        if block.language == "yaml":
            _check_yaml(place)
    elif block.language == "python":
        (directory / "snippet.py").write_text(_smaller(block.text), encoding="utf-8")
        if block.not_run is None:
            return run_shell(f"{shlex.quote(sys.executable)} snippet.py", directory)
        compile(block.text, "snippet.py", "exec")
    elif block.language == "yaml":
        (directory / "snippet.yaml").write_text(block.text, encoding="utf-8")
        _check_yaml(directory / "snippet.yaml")
    return ""


def _smaller(text: str) -> str:
    for printed, here in SMALLER:
        text = text.replace(printed, here)
    return text


def _check_yaml(path: Path) -> None:
    """A run configuration, whole or a part of one, is one that can be loaded; others are YAML."""
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    from megatron_salamandra.config import RunConfig

    sections = set(RunConfig.model_fields) | {"extends"}
    if isinstance(content, dict) and set(content) <= sections and next(iter(content), None) != "phases":
        if "extends" not in content and "model" not in content:
            path.write_text("extends: tiny\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
        load_run_config(str(path))


def _program(command: str) -> str:
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"\w+=.*", word)]
    return Path(words[0]).name if words else ""


def _check_unrun(command: str) -> None:
    """A command that is not run is at least one that our programs understand."""
    words = [word for word in shlex.split(command.replace("\\\n", " "), comments=True) if word != "..."]
    while re.fullmatch(r"\w+=.*", words[0]):
        words.pop(0)
    if words[0] == "salamandra":
        arguments = build_parser().parse_args(words[1:])
        assert arguments.handler
    elif "megatron_salamandra.train" in words:
        parse_arguments(words[words.index("megatron_salamandra.train") + 1 :])
    elif words[0] == "make":
        dry = ["make", "--dry-run", *words[1:]]
        done = subprocess.run(dry, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip" and words[1] == "install":
        _check_installation(words[2:])
    elif "/" in words[0]:
        assert (REPOSITORY / words[0]).is_file(), f"{words[0]}: no such program"


def _check_installation(words: Sequence[str]) -> None:
    """From a checkout: the index of packages does not have this project."""
    for word in words:
        if word.startswith("-"):
            continue
        place, extras = re.fullmatch(r"([^\[]*)(?:\[(.*)\])?", word).groups()  # type: ignore[union-attr]
        assert place.replace("_", "-") != "megatron-salamandra", f"{word}: install it from a checkout, as '.'"
        if place == ".":
            known = set(metadata("megatron-salamandra").get_all("Provides-Extra") or ())
            assert set(extras.split(",") if extras else ()) <= known, f"{word}: there are {sorted(known)}"


def _remove(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
