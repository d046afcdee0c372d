"""The code blocks of a page of documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]
)

_BLOCK = re.compile(
    r"(?:^[ ]*<!--\s*not run:(?P<reason>[^\n]*?)-->\s*?\n\s*?)?^(?P<indent>[ ]*)```(?P<language>\S*)[ ]*\n(?P<text>.*?)"
    r"^(?P=indent)```[ ]*$",
    re.M | re.S,
)
_FILE_NAME = re.compile(r"#\s*(?P<name>[\w./-]+\.(?:py|ya?ml))\b")


@dataclass(frozen=True)
class Block:
    """One code block.

    Attributes:
        line: where it stands in the page, for messages.
        language: what follows the opening fence; empty is a shell.
        not_run: why it is not run, from a comment ``<!-- not run: needs a cluster -->`` above it; None if it is.
    """

    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def is_shell(self) -> bool:
        return self.language in ("", "sh", "bash", "shell")

    @property
    def file_name(self) -> str | None:
        """The file that its first line says it is: ``# factors.yaml``."""
        found = _FILE_NAME.match(self.text)
        return found["name"] if found else None

    def commands(self) -> Iterator[str]:
        """The commands of a shell block, each with its continued lines; comments left out."""
        command = ""
        for line in self.text.splitlines():
            command = f"{command}\n{line}" if command else line
            if line.endswith("\\"):
                continue
            try:
                words = shlex.split(command, comments=True)
            except ValueError:  # inside quotes
                continue
            if words:
                yield command
            command = ""
        assert not command, f"a command does not end: {command}"


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=re.sub(rf"^{found['indent']}", "", found["text"], flags=re.M),
            not_run=found["reason"].strip() if found["reason"] is not None else None,
        )
        for found in _BLOCK.finditer(text)
    ]
