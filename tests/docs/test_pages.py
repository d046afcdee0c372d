"""Every command and snippet of README and docs/ is run as printed, in a directory where somebody followed them.

A block that cannot run here says why in a comment above it, ``<!-- not run: needs a cluster -->``; its commands are
then parsed. A block whose first line names a file, ``# factors.yaml``, becomes that file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from followed_page import FollowedPage
from pages import PAGES, REPOSITORY, blocks

REASONS = ("needs ", "takes ", "is shown ", "shows ")


def ids(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=ids)
def test_what_a_page_shows_can_be_done(page: Path, follow: Callable[[Path], FollowedPage]) -> None:
    assert follow(page).directory.is_dir()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=ids)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.not_run is not None:
            assert block.not_run.startswith(REASONS), f"{ids(page)}:{block.line}: {block.not_run!r}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
