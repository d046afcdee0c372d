"""Manifests list the largest sources and licences, and count the documents of all others."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tokenize_job import tokenize_job

from salamandra_data.errors import DataWarning
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import LabelCounts, ShardManifest, Whole, manifest, reshard
from salamandra_data.tokenization import tokenize_documents


@pytest.fixture
def web_shard(tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard of 60 documents: 20 pages once, 8 pages five times, and nothing known of the licence of any but two."""
    monkeypatch.setattr(manifest, "MOST_LISTED", 10)
    pages = [f"https://página/{number:02d}?a=\\n" for number in range(20)] + [
        f"site-{number % 8}" for number in range(40)
    ]
    records = [{"text": f"document {number}", "source": page} for number, page in enumerate(pages)]
    records[0]["licence"] = records[5]["licence"] = "free"
    source = tmp_path / "web.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenize_documents(
        tokenize_job([source], small_tokenizer, tmp_path / "shards", DocumentKeys(language="ca"))
    )
    return tmp_path / "shards" / "ca-train-00000"


def test_the_largest_sources_are_listed_and_the_others_counted(web_shard: Path) -> None:
    manifest = ShardManifest.load(web_shard)
    largest = {f"site-{number}": 5 for number in range(8)}
    first_of_the_rest = {f"https://página/{number:02d}?a=\\n": 1 for number in (0, 1)}
    assert manifest.sources == {**first_of_the_rest, **largest}
    assert list(manifest.sources) == sorted(manifest.sources)
    assert manifest.unlisted_sources == 18
    assert (manifest.licences, manifest.unlisted_licences) == ({"free": 2}, 0)


def test_joined_shards_keep_the_count_of_unlisted_sources(web_shard: Path, tmp_path: Path) -> None:
    reshard([web_shard], tmp_path / "merged", Whole())
    before, after = ShardManifest.load(web_shard), ShardManifest.load(tmp_path / "merged" / "ca-train-00000")
    assert (after.sources, after.unlisted_sources) == (before.sources, before.unlisted_sources)


def test_a_manifest_of_before_lists_all(web_shard: Path) -> None:
    path = web_shard.with_suffix(".json")
    values = json.loads(path.read_text())
    del values["unlisted_sources"], values["unlisted_licences"], values["own_sha256"], values["ends_with"]
    path.write_text(json.dumps(values))
    with pytest.warns(DataWarning, match="no checksum of themselves(?s:.*)data verify --renew"):
        assert ShardManifest.load(web_shard).unlisted_sources == 0


def test_sums_are_kept_whatever_is_listed() -> None:
    counts = LabelCounts()
    names = [f"{number % 1700}" for number in range(9000)]
    counts.add(Counter(names[:5000]))
    counts.add(Counter(names[5000:]), unlisted=7)
    largest, unlisted = counts.listed()
    assert len(largest) == manifest.MOST_LISTED == 1000
    assert sum(largest.values()) + unlisted == 9007
    assert min(largest.values()) >= max(Counter(names).values()) - 1
