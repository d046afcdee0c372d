"""What following the pages leaves, prepared once."""

from __future__ import annotations

from pathlib import Path

import pytest
from followed_pages import prepare


@pytest.fixture(scope="session")
def followed_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared directory; tests copy it."""
    return prepare(tmp_path_factory.mktemp("followed"))
