"""What docs/how-to/add-a-source-of-another-kind.md says of its results; that it can be followed, test_pages.py says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from followed_page import FollowedPage
from followed_pages import run_shell
from pages import REPOSITORY, blocks

from salamandra_data.blend_plan import BlendPlan

PAGE = REPOSITORY / "docs" / "how-to" / "add-a-source-of-another-kind.md"


def test_the_page_is_right_about_sources_refusal_and_ledger(
    follow: Callable[[Path], FollowedPage], tmp_path: Path
) -> None:
    page = follow(PAGE)
    directory = page.directory
    _, _, _, refused, message, _, _ = blocks(PAGE)
    plan = BlendPlan.load(directory / "all.yaml")
    half, one = Fraction(1, 2), Fraction(1)
    assert [(source.name, source.language, source.kind, source.factor) for source in plan.sources] == [
        ("aya", "en", "instructions", half),
        ("ca", "ca", "text", 2),
        ("en", "en", "text", half),
        ("es", "es", "text", one),
        ("eu", "eu", "text", one),
        ("wiki-ca", "ca", "text", 3),
        ("wiki-en", "en", "text", half),
    ]
    shutil.copytree(directory, tmp_path / "followed", symlinks=True)
    with pytest.raises(AssertionError) as caught:
        run_shell(refused.text, tmp_path / "followed")
    assert message.text.strip() in str(caught.value)
    assert "wiki-ca, epoch 0" in page.printed[-1]
    last = json.loads((directory / "runs/text/metrics.jsonl").read_text().splitlines()[-1])
    sources, languages = last["sources"], last["languages"]
    assert sources.keys() == {"ca", "en", "es", "eu", "wiki-ca", "wiki-en"}
    for language in ("ca", "en"):
        parts = sources[language]["tokens"] + sources[f"wiki-{language}"]["tokens"]
        assert languages[language]["tokens"] == parts
    assert sum(entry["tokens"] for entry in languages.values()) == last["tokens"]
