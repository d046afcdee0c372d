"""What docs/how-to/add-a-source-of-another-kind.md says of its results; that it can be followed, test_pages.py says."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
from followed_pages import run_shell
from pages import REPOSITORY, blocks

from salamandra_data.blend_plan import BlendPlan

PAGE = REPOSITORY / "docs" / "how-to" / "add-a-source-of-another-kind.md"


def test_the_page_is_right_about_sources_refusal_and_ledger(followed_pages: Path, tmp_path: Path) -> None:
    directory = tmp_path / "followed"
    shutil.copytree(followed_pages, directory, symlinks=True)
    tokenize, worth, blend, refused, message, worth_of_text, train = blocks(PAGE)
    for block in (worth, worth_of_text):
        assert block.file_name is not None
        (directory / block.file_name).write_text(block.text)
    run_shell(tokenize.text, directory)
    run_shell(blend.text, directory)
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
    with pytest.raises(AssertionError) as caught:
        run_shell(refused.text, directory)
    assert message.text.strip() in str(caught.value)
    assert "wiki-ca, epoch 0" in run_shell(train.text, directory)
    last = json.loads((directory / "runs/text/metrics.jsonl").read_text().splitlines()[-1])
    sources, languages = last["sources"], last["languages"]
    assert sources.keys() == {"ca", "en", "es", "eu", "wiki-ca", "wiki-en"}
    for language in ("ca", "en"):
        parts = sources[language]["tokens"] + sources[f"wiki-{language}"]["tokens"]
        assert languages[language]["tokens"] == parts
    assert sum(entry["tokens"] for entry in languages.values()) == last["tokens"]
