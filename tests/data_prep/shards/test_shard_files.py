"""Which shards places mean: through links, each once, and none passed over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tokenize_job import tokenize_job
from user_without_rights import as_a_user_without_rights

from megatron_salamandra.cli import main
from salamandra_data.blend_plan import LanguageFactors, build_plan, verify
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import (
    ShardWriter,
    TokenizerIdentity,
    Whole,
    document_text,
    find_shards,
    reshard,
    search_documents,
    shard_table,
)
from salamandra_data.tokenization import tokenize_documents


@pytest.fixture
def places(tmp_path: Path, small_tokenizer: Path) -> Path:
    """Catalan in ``all/ca``; Spanish in ``elsewhere/es``, which ``all/es`` is a link to."""
    from salamandra_data.checksums import sha256_of_file

    identity = TokenizerIdentity(sha256_of_file(small_tokenizer), 800, 2)
    for directory, language in (("all/ca", "ca"), ("elsewhere/es", "es")):
        (tmp_path / directory).mkdir(parents=True)
        shutil.copy(small_tokenizer, tmp_path / directory / "tokenizer.model")
        with ShardWriter(
            tmp_path / directory / f"{language}-train-00000",
            language=language,
            split="train",
            tokenizer=identity,
        ) as writer:
            writer.add_document([400, 401, len(language) + ord(language[0]), 2], utf8_bytes=9)
    (tmp_path / "all/es").symlink_to("../elsewhere/es")
    return tmp_path


def names(prefixes: list[Path]) -> list[str]:
    return [prefix.name for prefix in prefixes]


def test_links_to_directories_of_shards_are_followed_by_every_command(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["ca-train-00000", "es-train-00000"]
    assert names(find_shards([places / "all"])) == both  # type: ignore[arg-type]
    assert verify([places / "all"]).shards == 2
    assert "es-train-00000" in shard_table(places / "all")
    plan = build_plan([places / "all"], LanguageFactors({"ca": 1, "es": 1}))
    assert [source.language for source in plan.sources] == ["ca", "es"]
    with pytest.raises(DataError, match="language is 'es'"):
        reshard(find_shards([places / "all"]), places / "out", Whole())
    shutil.rmtree(places / "all/ca")
    assert main(["data", "inspect", str(places / "all")]) == 0
    assert "es-train-00000" in capsys.readouterr().out


def test_circles_of_links_end(places: Path) -> None:
    (places / "elsewhere/es/up").symlink_to("../../all")
    with pytest.warns(DataWarning, match="reached twice") as caught:
        assert names(find_shards([places])) == ["ca-train-00000", "es-train-00000"]  # type: ignore[arg-type]
    assert len(caught) == 1


def test_a_shard_that_is_reached_twice_counts_once_and_is_named(places: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(find_shards([places / "all/ca", places / "all/ca/ca-train-00000.bin"])) == 1
    (places / "again").symlink_to("all/ca/")
    for ending in (".bin", ".idx", ".json"):
        (places / f"other-name{ending}").symlink_to(f"all/ca/ca-train-00000{ending}")
    with pytest.warns(DataWarning, match="2 shards reached twice, through links, and counted once: .*again"):
        found = find_shards([places / "all/ca", places / "again", places / "other-name"])
    assert found == [places / "all/ca/ca-train-00000"]


def test_directories_that_may_not_be_searched_are_an_error(places: Path) -> None:
    closed = places / "elsewhere" / "es"
    closed.chmod(0)
    try:
        with as_a_user_without_rights(places):
            for place in (places / "all", places / "elsewhere", closed, closed / "es-train-00000"):
                with pytest.raises(DataError, match="es: may not be read by this user"):
                    find_shards([place])
    finally:
        closed.chmod(0o700)
    (places / "all/fr").symlink_to("/nowhere/fr")
    with pytest.raises(DataError, match="fr: is a link to /nowhere/fr"):
        find_shards([places / "all"])


def test_copies_of_a_shard_are_refused_or_named(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(places / "all/ca", places / "copies/ca")
    both = [places / "all/ca/ca-train-00000", places / "copies/ca/ca-train-00000"]
    with pytest.raises(DataError, match="holds the same tokens as .*\n  name one"):
        reshard(both, places / "out", Whole())
    with pytest.raises(DataError, match="same tokens as"):
        build_plan(both, LanguageFactors({"ca": 1}))
    report = verify(both)
    assert report.problems == []
    assert any("holds the same tokens as" in line for line in report.lines())
    (places / "both").mkdir()
    for name in ("all/ca", "copies/ca"):
        (places / "both" / name.replace("/", "-")).symlink_to(places / name)
    with pytest.warns(DataWarning, match="same tokens as"):
        shard_table(places / "both")
    assert not (places / "out").exists()


@pytest.mark.parametrize("ending", [".bin", ".idx", ".json"])
def test_a_file_that_may_not_be_read_is_a_sentence_in_every_command(
    places: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = places / "all/ca"
    (ca / f"ca-train-00000{ending}").chmod(0)
    model = str(ca / "tokenizer.model")
    shard = str(ca / "ca-train-00000")
    commands = {
        "verify": [str(ca)],
        "inspect": [shard],
        "inspect --document 0": [shard, "--document", "0", "--tokenizer", model],
        "inspect --search": [shard, "--search", "a", "--tokenizer", model],
        "blend": ["--shards", str(ca), "--temperature", "1", "--out", str(places / "b.yaml")],
        "merge": [shard, "--out", str(places / "m")],
        "split": [shard, "--shards", "1", "--out", str(places / "s")],
    }
    with as_a_user_without_rights(places):
        for name, arguments in commands.items():
            assert main(["data", name.split()[0], *arguments]) == 1, name
            captured = capsys.readouterr()
            said = captured.out + captured.err
            assert f"ca-train-00000{ending}" in said and "Permission denied" in said, (name, said)


def test_control_characters_of_documents_do_not_reach_the_terminal(
    tmp_path: Path, small_tokenizer: Path
) -> None:
    text = "abc \x1b]0;title\x07 \x9b31m \x7f\r\n\tend\x00"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    tokenize_documents(
        tokenize_job(
            [tmp_path / "a.jsonl"], small_tokenizer, tmp_path / "shards", DocumentKeys(language="ca")
        )
    )
    shown = document_text(tmp_path / "shards", 0)
    assert shown == "abc \\x1b]0;title\\x07 \\x9b31m \\x7f\\x0d\n\tend\\x00"
    (found,) = search_documents(tmp_path / "shards", "title")
    assert "\x1b" not in found.line() and "\\x1b]0;title" in found.line()


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_documents_are_printed_whatever_the_encoding(
    tmp_path: Path, small_tokenizer: Path, environment: dict[str, str]
) -> None:
    text = "línia — Ελλάδα 😀"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    tokenize_documents(
        tokenize_job(
            [tmp_path / "a.jsonl"], small_tokenizer, tmp_path / "shards", DocumentKeys(language="ca")
        )
    )
    for arguments in (["--document", "0"], ["--search", "Ελλάδα"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "megatron_salamandra.cli",
                "data",
                "inspect",
                tmp_path / "shards",
                *arguments,
            ],
            capture_output=True,
            env={**os.environ, **environment},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\u0395\\u03bb" in done.stdout and b"nia " in done.stdout


def test_output_that_names_a_file_is_told_as_that(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (places / "file").write_text("")
    for out in ("file", "file/below"):
        command = ["data", "merge", str(places / "all/ca/ca-train-00000"), "--out", str(places / out)]
        assert main(command) == 1
        assert (
            "a file is in the way where a directory is needed\n  choose another place"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [("language", 5), ("split", None), ("licences", ["MIT"]), ("sources", {"web": "3"}), ("documents", 1.5)],
)
def test_manifests_with_values_of_another_kind_are_a_sentence(
    places: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    manifest = places / "all/ca/ca-train-00000.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: value}))
    for arguments in (
        ["inspect", str(places / "all/ca")],
        ["merge", str(manifest), "--out", str(places / "o")],
    ):
        assert main(["data", *arguments]) == 1
        assert f"ca-train-00000.json: {key}" in capsys.readouterr().err
