"""Empty files, and languages under the names that data sets use, are tokenized for what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenize_job import tokenize_job

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.languages import LANGUAGES, corpus_language
from salamandra_data.readers import DocumentKeys
from salamandra_data.shards import ShardManifest
from salamandra_data.tokenization import tokenize_documents


def write_lines(path: Path, *languages: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({"text": f"bona tarda {name}", "language": name}) + "\n" for name in languages)
    )
    return path


@pytest.mark.parametrize("empty", [["a.jsonl"], ["a.jsonl", "b.txt"], ["z.jsonl"]])
@pytest.mark.parametrize("workers", [1, 2])
def test_files_of_zero_bytes_are_passed_over_wherever_they_are(
    tmp_path: Path, small_tokenizer: Path, empty: list[str], workers: int
) -> None:
    write_lines(tmp_path / "in" / "m.jsonl", "ca", "ca")
    for name in empty:
        (tmp_path / "in" / name).write_bytes(b"")
    keys = DocumentKeys(language="ca")
    result = tokenize_documents(
        tokenize_job([tmp_path / "in"], small_tokenizer, tmp_path / "out", keys), workers
    )
    assert [(group.language, group.documents) for group in result.groups] == [("ca", 2)]


def test_only_files_of_zero_bytes_are_one_sentence(tmp_path: Path, small_tokenizer: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "in" / name).write_bytes(b"")
    with pytest.raises(DataError, match="no document with text in 2 input files"):
        tokenize_documents(tokenize_job([tmp_path / "in"], small_tokenizer, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(
            ("cat_Latn", "ca"),
            ("eng_Latn", "en"),
            ("spa-Latn", "es"),
            ("CA", "ca"),
            ("en-US", "en"),
            ("EUS", "eu"),
        ),
        *(
            ("nob_Latn", "no"),
            ("nb", "no"),
            ("nno_Latn", "nn"),
            ("srp_Cyrl", "sr"),
            ("srp_Latn", "sh"),
            ("hbs", "sh"),
        ),
        *(
            ("ekk_Latn", "et"),
            ("lvs_Latn", "lv"),
            ("pt_BR", "pt"),
            ("Code", "code"),
            ("zho_Hans", None),
            ("xx", None),
        ),
    ],
)
def test_names_of_data_sets_mean_languages_of_the_corpus(name: str, language: str | None) -> None:
    assert corpus_language(name) == language


def test_every_language_means_itself() -> None:
    assert [corpus_language(language) for language in LANGUAGES] == list(LANGUAGES)


def test_languages_under_other_names_are_one_with_the_corpus_language(
    tmp_path: Path, small_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_lines(tmp_path / "in.jsonl", "cat_Latn", "ca", "CA", "en-US", "zho_Hans")
    command = ["data", "tokenize", "--input", str(source), "--tokenizer", str(small_tokenizer)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "CA is ca, cat_Latn is ca, en-US is en" in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / "out").glob("*.bin")} == {
        "ca-train-00000",
        "en-train-00000",
        "zho_Hans-train-00000",
    }
    factors = tmp_path / "factors.yaml"
    factors.write_text("eng_Latn: 0.5\nca: 2\n")
    options = ["--factors", str(factors), "--out", str(tmp_path / "blend.yaml")]
    assert main(["data", "blend", "--shards", str(tmp_path / "out"), *options]) == 0
    told = capsys.readouterr()
    assert "warning: not named in the factors file, so of the default factor 1: zho_Hans" in told.err
    assert "no text for" not in told.err
    assert [line.split()[2] for line in told.out.splitlines() if line.startswith(("en ", "ca "))] == [
        "2",
        "0.5",
    ]


def test_shards_under_another_name_of_the_language_are_in_the_way(
    tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "in.jsonl", "cat_Latn")
    with monkeypatch.context() as patch:  # as it was when each name was a language of its own
        for module in ("first_pass", "plan"):
            patch.setattr(f"salamandra_data.tokenization.{module}.known_language", str)
        tokenize_documents(tokenize_job([source], small_tokenizer, tmp_path / "out"))
    assert (tmp_path / "out" / "cat_Latn-train-00000.bin").exists()
    with pytest.raises(DataError, match="holds shards of 'cat_Latn' made from other input"):
        tokenize_documents(tokenize_job([source], small_tokenizer, tmp_path / "out"))


def test_the_option_names_a_language_as_the_key_does(tmp_path: Path, small_tokenizer: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", "xx")
    keys = DocumentKeys(language="cat_Latn")
    result = tokenize_documents(tokenize_job([source], small_tokenizer, tmp_path / "out", keys))
    assert [group.language for group in result.groups] == ["ca"] and result.renamed == {"cat_Latn": "ca"}


@pytest.mark.parametrize(
    ("field", "counted"),
    [
        ('"source": ' + "9" * 400, {}),
        ('"source": 1e999, "licence": -1e999', {}),
        ('"other": ' + "9" * 400, {}),
        ('"source": "' + "s" * 3_000_000 + '"', {"s" * 3_000_000: 2}),
    ],
    ids=["number of 400 digits", "infinite number", "number elsewhere", "label of 3 MB"],
)
def test_odd_labels_neither_stop_nor_change_a_run(
    tmp_path: Path, small_tokenizer: Path, field: str, counted: dict[str, int]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(f'{{"text": "bona tarda", "language": "ca", {field}}}\n' * 2)
    tokenize_documents(tokenize_job([source], small_tokenizer, tmp_path / "out"))
    manifest = ShardManifest.load(tmp_path / "out" / "ca-train-00000")
    assert (manifest.documents, dict(manifest.sources)) == (2, counted)


@pytest.mark.parametrize("length", [64, 65, 5000])
def test_names_of_languages_of_any_length_are_taken_or_named(
    tmp_path: Path, small_tokenizer: Path, length: int
) -> None:
    source = write_lines(tmp_path / "in.jsonl", "x" * length)
    job = tokenize_job([source], small_tokenizer, tmp_path / "out")
    if length == 64:
        assert tokenize_documents(job).groups[0].language == "x" * 64
        return
    with pytest.raises(DataError, match=r"in\.jsonl:1: 'language' = 'x+\.{0,3}'?.*is not a name") as refused:
        tokenize_documents(job)
    assert len(str(refused.value)) < 1000
