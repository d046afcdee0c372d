"""What following the pages leaves, each page followed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from followed_page import FollowedPage, follow_page
from followed_pages import prepare


@pytest.fixture(scope="session")
def followed_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared directory; tests copy it."""
    return prepare(tmp_path_factory.mktemp("followed"))


@pytest.fixture(scope="session")
def follow(followed_pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], FollowedPage]:
    """Follows a page, the first time that it is asked for; tests leave the directory as it is."""

    @cache
    def followed(page: Path) -> FollowedPage:
        return follow_page(page, followed_pages, tmp_path_factory.mktemp(page.stem) / "followed")

    return followed
