"""A blend plan is exact, survives the disk, and refuses shards that are not what it was made from."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unsummed import without_own_sum

from megatron_salamandra.foundation.own_sums import with_own_sum
from salamandra_data.blend_plan import BlendPlan, LanguageFactors, NamedSource, build_plan, reweighted, verify
from salamandra_data.blend_plan.factors import parse_factor
from salamandra_data.blend_plan.plan_file import factor_text
from salamandra_data.blend_plan.report import blend_table, blend_warnings, draws, pass_tokens
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards import ShardManifest, ShardWriter, TokenizerIdentity

PUBLISHED = LanguageFactors({"en": Fraction(1, 2), "ca": Fraction(2)})


def write_source(
    directory: Path, language: str, lengths: list[int], split: str = "train", number: int = 0, salt: int = 0
) -> Path:
    """Documents of the given lengths; the ids depend on language and ``salt``, so that no two shards are equal."""
    model = directory / "tokenizer.model"
    if not model.exists():
        directory.mkdir(parents=True, exist_ok=True)
        model.write_bytes(b"not really a model")
    tokenizer = TokenizerIdentity(sha256_of_file(model), vocab_size=1000, eod_id=2)
    prefix = directory / f"{language}-{split}-{number:05d}"
    filler = 400 + (sum(language.encode()) + salt) % 500
    with ShardWriter(prefix, language=language, split=split, tokenizer=tokenizer) as writer:
        for length in lengths:
            writer.add_document([filler] * (length - 1) + [2], utf8_bytes=3 * length)
    return prefix


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    directory = tmp_path / "shards"
    write_source(directory, "en", [100, 60])
    write_source(directory, "ca", [30])
    write_source(directory, "ca", [20], number=1, salt=1)
    write_source(directory, "no", [7])
    write_source(directory, "ca", [9], split="validation", salt=2)
    return directory


def test_weights_are_tokens_times_factor_as_exact_integers(shards: Path) -> None:
    plan = build_plan([shards], PUBLISHED)
    assert [(source.language, source.tokens, source.weight) for source in plan.sources] == [
        ("ca", 50, 200),
        ("en", 160, 160),
        ("no", 7, 14),
    ]
    assert plan.weight_denominator == 2
    assert pass_tokens(plan) == 187
    assert plan.share("ca") == Fraction(200, 374)
    assert plan.sources[0].validation_tokens == 9
    assert [shard.path.name for shard in plan.sources[0].shards] == ["ca-train-00000", "ca-train-00001"]


def test_one_pass_walks_each_source_factor_times(shards: Path) -> None:
    plan = build_plan([shards], PUBLISHED)
    assert [draw.epochs for draw in draws(plan)] == [2, Fraction(1, 2), 1]
    assert [draw.epochs for draw in draws(plan, 187 * 3)] == [6, Fraction(3, 2), 3]


def test_saved_frozen_and_moved_plans_are_the_same_plan(shards: Path, tmp_path: Path) -> None:
    plan = build_plan([shards], PUBLISHED)
    plan.save(tmp_path / "blend.yaml")
    plan.freeze(tmp_path / "run" / "blend.lock.yaml")
    assert BlendPlan.load(tmp_path / "blend.yaml") == plan
    assert BlendPlan.load(tmp_path / "run" / "blend.lock.yaml") == plan
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(str(shards), moved / "shards")
    shutil.move(str(tmp_path / "blend.yaml"), moved / "blend.yaml")
    reloaded = BlendPlan.load(moved / "blend.yaml")
    assert reloaded.fingerprint() == plan.fingerprint()
    assert reloaded.sources[0].shards[0].path == moved / "shards" / "ca-train-00000"


def test_parsed_plan_has_the_fingerprint_after_its_data_are_gone(shards: Path, tmp_path: Path) -> None:
    plan = build_plan([shards], PUBLISHED)
    plan.freeze(tmp_path / "blend.lock.yaml")
    shutil.rmtree(shards)
    assert BlendPlan.parse(str(tmp_path / "blend.lock.yaml")) == plan
    assert BlendPlan.parse(tmp_path / "blend.lock.yaml").fingerprint() == plan.fingerprint()
    with pytest.raises(DataError, match=r"tokenizer\.model is missing"):
        BlendPlan.load(tmp_path / "blend.lock.yaml")


def test_plan_on_disk_has_a_source_per_language_and_relative_paths(shards: Path, tmp_path: Path) -> None:
    build_plan([shards], PUBLISHED).save(tmp_path / "blend.yaml")
    contents = yaml.safe_load((tmp_path / "blend.yaml").read_text())
    assert [source["language"] for source in contents["sources"]] == ["ca", "en", "no"]
    assert contents["sources"][1]["factor"] == "0.5"
    assert contents["sources"][0]["shards"][0]["path"] == os.path.join("shards", "ca-train-00000")


def test_fingerprint_changes_with_factors_and_tokens(shards: Path) -> None:
    plan = build_plan([shards], PUBLISHED)
    assert build_plan([shards], LanguageFactors({})).fingerprint() != plan.fingerprint()
    write_source(shards, "no", [7], salt=5)
    assert build_plan([shards], PUBLISHED).fingerprint() != plan.fingerprint()


def test_factor_zero_leaves_a_language_out(shards: Path) -> None:
    factors = LanguageFactors({"en": Fraction(0), "oc": Fraction(1), "nn": Fraction(0)})
    plan = build_plan([shards], factors)
    assert [source.language for source in plan.sources] == ["ca", "no"]
    warnings = blend_warnings(plan, factors, budget_tokens=57 * 5)
    assert warnings[:2] == [
        "no text for 1 languages of the factors file: oc",
        "left out by factor 0: en, nn",
    ]
    assert any(warning.startswith("ca is walked 5.00 times") for warning in warnings)


def test_table_lists_largest_share_first(shards: Path) -> None:
    lines = blend_table(build_plan([shards], PUBLISHED), 187).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["ca", "en", "no"]
    assert lines[2].split() == ["ca", "50", "2", "53.47594%", "100", "2.000", "9", "2"]


def damage(shards: Path, kind: str) -> None:
    prefix = shards / "en-train-00000"
    if kind == "missing .bin":
        prefix.with_suffix(".bin").unlink()
    elif kind == "missing .idx":
        prefix.with_suffix(".idx").unlink()
    elif kind == "missing .json":
        prefix.with_suffix(".json").unlink()
    elif kind == "truncated .bin":
        with open(prefix.with_suffix(".bin"), "r+b") as stream:
            stream.truncate(100)
    elif kind == "truncated .idx":
        with open(prefix.with_suffix(".idx"), "r+b") as stream:
            stream.truncate(60)
    elif kind == "replaced tokenizer":
        (shards / "tokenizer.model").write_bytes(b"another model")
    elif kind == "missing tokenizer":
        (shards / "tokenizer.model").unlink()
    elif kind == "prepared again":
        write_source(shards, "en", [99, 61])
    elif kind == "other tokenizer":
        other = shards / "other"
        write_source(other, "en", [100, 60])
        (other / "tokenizer.model").write_bytes(b"another model")
        write_source(other, "en", [100, 60])
        for ending in (".bin", ".idx", ".json"):
            shutil.move(other / f"en-train-00000{ending}", prefix.with_suffix(ending))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing .bin", "en-train-00000.bin: missing"),
        ("missing .idx", "en-train-00000.idx: missing"),
        ("missing .json", "en-train-00000.json: missing"),
        ("truncated .bin", "en-train-00000.bin: 100 bytes.*truncated"),
        ("truncated .idx", "en-train-00000.idx: 60 bytes.*truncated"),
        ("replaced tokenizer", "tokenizer.sha256.*was replaced"),
        ("missing tokenizer", "tokenizer.model is missing"),
        ("prepared again", "prepared again after the plan was made"),
        ("other tokenizer", "one tokenizer"),
    ],
)
def test_loading_refuses_data_that_changed(shards: Path, tmp_path: Path, kind: str, named: str) -> None:
    build_plan([shards], PUBLISHED).save(tmp_path / "blend.yaml")
    damage(shards, kind)
    with pytest.raises(DataError, match=f"(?s){named}"):
        BlendPlan.load(tmp_path / "blend.yaml")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("factor: '2'", "factor: '-1'", r"sources\[0\].factor"),
        ("factor: '2'", "factor: two", r"sources\[0\].factor"),
        ("factor: '2'", "factor: 0", r"sources\[0\].factor"),
        ("factor: '2'", "factor: '3'", r"sources\[0\].weight"),
        ("tokens: 160", "tokens: 161", r"sources\[1\]"),
        ("language: en", "langauge: en", r"sources\[1\].language is missing"),
        ("eod_id: 2", "eod_id: 2\n  bos_id: 1", "unknown key tokenizer.bos_id"),
        ("eod_id: 2", "eod_id: yes", "tokenizer.eod_id"),
        ("salamandra-blend-1", "salamandra-blend-9", "format"),
        ("sources:", "sources: {}\nothers:", "sources must be a list"),
        ("sources:", "sources: []\nothers:", "sources is empty"),
        ("format", "format: [", "not YAML"),
    ],
)
def test_loading_names_the_wrong_key(shards: Path, tmp_path: Path, old: str, new: str, named: str) -> None:
    path = tmp_path / "blend.yaml"
    build_plan([shards], PUBLISHED).save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=named) as caught:
        BlendPlan.load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match=named):
        BlendPlan.parse(path)


def test_empty_language_is_refused(shards: Path) -> None:
    write_source(shards, "oc", [])
    with pytest.raises(DataError, match="language 'oc' is empty"):
        build_plan([shards], PUBLISHED)


def test_the_same_tokens_twice_are_refused(shards: Path) -> None:
    for ending in (".bin", ".idx", ".json"):
        shutil.copy(shards / f"en-train-00000{ending}", shards / f"en-train-00007{ending}")
    with pytest.raises(DataError, match="same tokens as"):
        build_plan([shards], PUBLISHED)


def test_equal_shards_that_were_made_together_are_no_copies(tmp_path: Path) -> None:
    # One document each, and the two documents are the same: verify and merge take them, and so does blend.
    for number in range(2):
        prefix = write_source(tmp_path, "en", [50], number=number)
        replace(ShardManifest.load(prefix), shard=number, shards=2).save(prefix)
    plan = build_plan([tmp_path], PUBLISHED)
    plan.save(tmp_path / "blend.yaml")
    assert BlendPlan.load(tmp_path / "blend.yaml") == plan
    assert verify([tmp_path]).problems == []
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy", "*.yaml"))
    with pytest.raises(DataError, match="same tokens as"):
        build_plan([tmp_path], PUBLISHED)


def test_a_plan_that_lists_a_copy_beside_its_original_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path, "en", [50])
    write_source(tmp_path, "en", [50], number=1, salt=1)
    path = tmp_path / "blend.yaml"
    build_plan([tmp_path], PUBLISHED).save(path)
    plan = yaml.safe_load(path.read_text())
    for ending in (".bin", ".idx", ".json"):
        shutil.copy(tmp_path / f"en-train-00000{ending}", tmp_path / f"en-train-00001{ending}")
    first, second = plan["sources"][0]["shards"]
    plan["sources"][0]["shards"] = [first, {**first, "path": second["path"]}]
    plan["sources"][0] |= {"tokens": 100, "documents": 2, "utf8_bytes": 300, "weight": 100}
    path.write_text(yaml.safe_dump(plan))
    with pytest.raises(
        DataError, match=r"en-train-00001 \(en\) holds the same tokens as .*en-train-00000 \(en\)"
    ):
        BlendPlan.load(path)


def test_shards_of_two_tokenizers_are_refused(shards: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.model").write_bytes(b"another model")
    write_source(other, "eu", [5])
    with pytest.raises(DataError, match="must come from one tokenizer"):
        build_plan([shards, other], PUBLISHED)


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        build_plan([tmp_path / "nowhere"], PUBLISHED)
    with pytest.raises(DataError, match="no shard"):
        build_plan([tmp_path], PUBLISHED)


@pytest.mark.parametrize(
    "text",
    [
        "en: 0.5\nca: 2\nno: 1\n",
        "languages:\n  en: 0.5\n  ca: {factor: 2, corpus_a: 1.85}\n  no: 1\n",
        "factors: {en: '1/2', ca: 2.0}\ndefault_factor: 1\n",
        "en: 0.5\nca: 2\ndefault: 1\n",
    ],
)
def test_factor_files_in_every_documented_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "factors.yaml").write_text(text)
    factors = LanguageFactors.load(tmp_path / "factors.yaml")
    assert [factors.factor(language) for language in ("en", "ca", "no", "xx")] == [Fraction(1, 2), 2, 1, 1]


@pytest.mark.parametrize(
    "text", ["en: -1", "en: lots", "en: [1]", "[1, 2]", "factors: 3", "en: {share: 1}", "1: 2"]
)
def test_wrong_factor_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "factors.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"factors\.yaml"):
        LanguageFactors.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ca: 2\nen: 1\nca: 1\n", "'ca' is written twice"),
        ("languages:\n  no: 1\n  'no': 2\n", "'no' is written twice"),
        ("languages: {ca: 2}\ndefualt_factor: 0\n", "(?s)defualt_factor: unknown key.*default_factor"),
        ("ca: 2\ndefualt_factor: 0\n", "(?s)defualt_factor: unknown key.*default_factor"),
        ("languages: {ca: {factr: 2}}\n", "(?s)languages.ca.factr: unknown key.*mean factor"),
        ("languages: {ca: 2}\nfactors: {en: 1}\n", "both languages and factors"),
        ("ca: 2\ndefault: 1\ndefault_factor: 0\n", "both default and default_factor"),
    ],
)
def test_factor_files_are_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "factors.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        LanguageFactors.load(path)


def test_published_factors_load() -> None:
    recipe = Path(__file__).parents[3] / "configs" / "data" / "salamandra-pretraining.yaml"
    factors = LanguageFactors.load(recipe)
    assert (factors.factor("en"), factors.factor("ca"), factors.factor("no")) == (Fraction(1, 2), 2, 1)


@pytest.mark.parametrize("endings", [(".bin", ".idx"), (".idx",), (".bin",)])
def test_a_blend_of_an_incomplete_shard_is_refused(shards: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        (shards / f"en-train-00000{ending}").unlink()
    with pytest.raises(DataError, match=r"en-train-00000: incomplete: .* missing"):
        build_plan([shards], PUBLISHED)


@given(st.fractions(min_value=0, max_value=1000, max_denominator=10**6))
def test_factors_survive_the_disk_exactly(factor: Fraction) -> None:
    assert parse_factor(factor_text(factor), "factor") == factor


@pytest.fixture
def two_corpora(shards: Path, tmp_path: Path) -> BlendPlan:
    """Catalan twice, once under a name of its own, and instructions in English."""
    wiki, aya = tmp_path / "wiki", tmp_path / "aya"
    write_source(wiki, "ca", [40], salt=7)
    write_source(wiki, "ca", [11], split="validation", salt=8)
    write_source(aya, "en", [50], salt=9)
    sources = [NamedSource.parse(f"wiki-{{language}}={wiki}"), NamedSource.parse(f"aya:instructions={aya}")]
    return build_plan([shards], PUBLISHED, sources=sources)


def test_a_language_may_have_several_sources(two_corpora: BlendPlan) -> None:
    assert [(s.name, s.language, s.kind, s.tokens, s.factor) for s in two_corpora.sources] == [
        ("aya", "en", "instructions", 50, Fraction(1, 2)),
        ("ca", "ca", "text", 50, 2),
        ("en", "en", "text", 160, Fraction(1, 2)),
        ("no", "no", "text", 7, 1),
        ("wiki-ca", "ca", "text", 40, 2),
    ]
    assert two_corpora.share("wiki-ca") == Fraction(80, two_corpora.total_weight) * 2
    table = blend_table(two_corpora)
    assert "wiki-ca" in table and "aya" in table


def test_a_source_may_have_a_factor_of_its_own(two_corpora: BlendPlan) -> None:
    factors = LanguageFactors({"ca": Fraction(2), "wiki-ca": Fraction(5), "aya": Fraction(0)})
    plan = reweighted(two_corpora, factors)
    assert {source.name: source.factor for source in plan.sources} == {
        "ca": 2,
        "en": 1,
        "no": 1,
        "wiki-ca": 5,
    }
    assert [(source.name, source.kind) for source in reweighted(plan, PUBLISHED).sources] == [
        ("ca", "text"),
        ("en", "text"),
        ("no", "text"),
        ("wiki-ca", "text"),
    ]
    assert not any("ca" in warning for warning in blend_warnings(plan, factors) if "no text" in warning)


def test_names_and_kinds_survive_the_disk_and_count_for_the_fingerprint(
    two_corpora: BlendPlan, tmp_path: Path
) -> None:
    path = tmp_path / "blend.yaml"
    two_corpora.save(path)
    loaded = BlendPlan.load(path)
    assert loaded == two_corpora and loaded.fingerprint() == two_corpora.fingerprint()
    text = without_own_sum(path.read_bytes()).decode()
    for old, new in (("name: wiki-ca", "name: wiki"), ("kind: instructions", "kind: images")):
        path.write_bytes(with_own_sum(text.replace(old, new, 1).encode()))
        assert BlendPlan.load(path).fingerprint() != two_corpora.fingerprint()
    for old, new, message in (
        ("kind: instructions", "kind: poems", r"sources\[0\].kind = 'poems', expected one of text"),
        ("name: wiki-ca", "name: ca", "language 'ca' is listed twice"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=message):
            BlendPlan.load(path)


def test_a_blend_of_languages_is_written_without_names_and_kinds(shards: Path, tmp_path: Path) -> None:
    build_plan([shards], PUBLISHED).save(tmp_path / "blend.yaml")
    for entry in yaml.safe_load((tmp_path / "blend.yaml").read_text())["sources"]:
        assert list(entry)[:2] == ["language", "factor"] and "name" not in entry and "kind" not in entry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wiki", "expected NAME=DIR"),
        ("=shards", "expected NAME=DIR"),
        ("wiki=", "expected NAME=DIR"),
        ("my wiki=shards", "expected NAME=DIR"),
        ("wiki-{lang}=shards", "expected NAME=DIR"),
        ("wiki:poems=shards", r"kind 'poems' is not known\n  expected one of text, instructions, images"),
    ],
)
def test_a_source_that_is_written_otherwise_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        NamedSource.parse(text)


def test_a_source_is_of_one_language(shards: Path) -> None:
    with pytest.raises(DataError, match=r"text in en, but source web has text in ca\n  .*web-\{language\}"):
        build_plan([], PUBLISHED, sources=[NamedSource("web", (shards,))])
    with pytest.raises(DataError, match="same tokens as"):
        build_plan([shards], PUBLISHED, sources=[NamedSource("web-{language}", (shards,))])
