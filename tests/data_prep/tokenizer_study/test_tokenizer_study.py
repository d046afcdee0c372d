"""Fertility is counted as BSC counted it, whatever library a tokenizer is of."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from declaration import ARTICLE_1
from hypothesis import given
from hypothesis import strategies as st
from json_lines import write_json_lines

from megatron_salamandra.cli import main
from salamandra_data.errors import DataError
from salamandra_data.tokenizer import plan_sampling
from salamandra_data.tokenizer_study import (
    StudyDocuments,
    count_words,
    measure_fertility,
    named_path,
    open_tokenizer,
    read_language_text,
)
from salamandra_data.tokenizer_study.fertility import word_pattern

TEXTS = {language: [text, text[::2]] for language, text in ARTICLE_1.items()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello world", ["Hello", " world"]),
        ("l'Hospitalet, 2024", ["l", "'", "Hospitalet", ",", " ", "2", "0", "2", "4"]),
        ("a  b\t\tc\n\n\nd", ["a", "  ", "b", "\t\t", "c", "\n\n\n", "d"]),
        ("snake_case m²", ["snake", "_", "case", " m"]),
        ("", []),
    ],
)
def test_words_are_split_as_published(text: str, words: list[str]) -> None:
    assert word_pattern().findall(text) == words and count_words(text) == len(words)


@given(
    st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x2FFF) | st.sampled_from(" \t\na1²_·Ⅷ"))
)
def test_words_are_those_of_the_published_pattern(text: str) -> None:
    import regex

    published = r"[ ]?[\p{L}]+|[ ]?[^\p{L}\p{N} \t\n]+|[ ]+|[\t]+|[\n]+|\d{1}"
    # The packages may know different versions of Unicode: unassigned characters are left out.
    text = "".join(character for character in text if unicodedata.category(character) != "Cn")
    assert word_pattern().findall(text) == regex.findall(published, text)


class LetterTokenizer:
    """One token per character."""

    name, vocab_size = "letters", 1

    def count(self, texts: Sequence[str]) -> object:
        from salamandra_data.tokenizer_study.encoders import TokenCounts

        return TokenCounts(sum(map(len, texts)), 0)


def test_parity_compares_words_or_for_parallel_text_tokens() -> None:
    texts = {"en": ["a bird"], "eu": ["txori bat da"]}
    by_words = measure_fertility([LetterTokenizer()], texts)  # type: ignore[list-item]
    assert [result.parity for result in by_words] == [1, pytest.approx((12 / 3) / (6 / 2))]
    by_tokens = measure_fertility([LetterTokenizer()], texts, parallel=True)  # type: ignore[list-item]
    assert [result.parity for result in by_tokens] == [1, 2]
    without = measure_fertility([LetterTokenizer()], {"eu": ["bat"]})  # type: ignore[list-item]
    assert without[0].parity is None


def test_a_reference_without_text_is_refused_before_measuring(
    tmp_path: Path, small_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json_lines(
        tmp_path / "c.jsonl", [{"text": "bat", "language": language} for language in ("eu", "gl")]
    )
    command = ["data", "fertility", "--input", str(path), "--tokenizers", str(small_tokenizer)]
    for options, language in ((["--reference", "xx"], "xx"), (["--parallel"], "en")):
        assert main([*command, *options]) == 1
        error = capsys.readouterr().err
        assert (
            f"--reference {language}: the input holds no text" in error and "there is text of eu, gl" in error
        )
        assert "measuring" not in error
    assert main([*command, "--reference", "gl"]) == 0 and "1.00" in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    contents = json.loads((tmp_path / "out" / "fertility.json").read_text())
    assert contents["conditions"]["parity"] == "none: no text of en"


def test_counts_are_those_of_sentencepiece(small_tokenizer: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    texts = {"en": ["All human beings", "are 漢字 born\nfree"]}
    (result,) = measure_fertility([open_tokenizer(small_tokenizer, "ours")], texts)
    rows = [processor.encode(text) for text in texts["en"]]
    assert (result.tokenizer, result.tokens, result.words) == ("ours", sum(map(len, rows)), 8)
    assert sum(processor.is_byte(number) for row in rows for number in row) == 7
    assert result.fallback_tokens == 6  # a newline has no piece of its own, but it is no unknown character
    assert result.utf8_bytes == len("".join(texts["en"]).encode())


def as_hugging_face(model: Path) -> Any:
    """A SentencePiece model as one of the library tokenizers."""
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, decoders, models, normalizers

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    pieces = {processor.id_to_piece(number): number for number in range(len(processor))}
    ranks = sorted(
        (pieces[left + right], left, right)
        for whole in pieces
        for cut in range(1, len(whole))
        if (left := whole[:cut]) in pieces and (right := whole[cut:]) in pieces and pieces[whole] > 390
    )
    converted = Tokenizer(
        models.BPE(
            pieces,
            [(left, right) for _, left, right in ranks],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    converted.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    converted.decoder = decoders.ByteFallback()
    return converted


def test_hugging_face_files_give_the_same_numbers(tmp_path: Path, small_tokenizer: Path) -> None:
    as_hugging_face(small_tokenizer).save(str(tmp_path / "tokenizer.json"))
    texts = {language: [text, "漢"] for language, text in ARTICLE_1.items()}
    ours, theirs = open_tokenizer(small_tokenizer), open_tokenizer(tmp_path)
    results = measure_fertility([ours, theirs], texts)
    half = len(results) // 2
    for sentencepiece_result, hugging_face_result in zip(results[:half], results[half:], strict=True):
        assert sentencepiece_result.tokens == hugging_face_result.tokens
        assert sentencepiece_result.fallback_tokens == hugging_face_result.fallback_tokens == 3


def test_truncation_and_padding_of_a_hugging_face_file_change_no_count(
    tmp_path: Path, small_tokenizer: Path
) -> None:
    converted = as_hugging_face(small_tokenizer)
    converted.enable_truncation(8)
    converted.enable_padding(length=64)
    converted.save(str(tmp_path / "tokenizer.json"))
    texts = ["bat", ARTICLE_1["eu"]]
    ours, theirs = open_tokenizer(small_tokenizer), open_tokenizer(tmp_path)
    assert theirs.count(texts) == ours.count(texts)


def test_byte_fallback_does_not_apply_to_a_tokenizer_of_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("matplotlib")
    from tokenizers import Tokenizer, models, pre_tokenizers

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    of_bytes = Tokenizer(models.BPE({character: number for number, character in enumerate(characters)}, []))
    split = pre_tokenizers.Split(" ", "isolated")
    of_bytes.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    of_bytes.save(str(tmp_path / "bytes.json"))
    path = write_json_lines(tmp_path / "c.jsonl", [{"text": "bat bi 漢", "language": "eu"}])
    command = ["data", "fertility", "--input", str(path), "--tokenizers", str(tmp_path / "bytes.json")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[2] == ["eu", "3", "3.333", "1.0000", "-", "-"] and table[4] == [
        "mean",
        "3.333",
        "1.0000",
        "-",
    ]
    (row,) = csv.DictReader((tmp_path / "out" / "fertility.csv").open())
    assert (row["tokens"], row["fallback_tokens"], row["fallback_share"]) == ("10", "", "")
    assert "None" not in (tmp_path / "out" / "index.html").read_text()


def test_text_is_read_up_to_the_limit_at_whole_lines(tmp_path: Path) -> None:
    documents = [{"text": "un\ndos\ntres\n" * 10, "language": "ca"}, {"text": "x" * 99, "language": "en"}]
    path = write_json_lines(tmp_path / "text.jsonl", documents)
    texts = read_language_text(StudyDocuments([path]), max_bytes=20)
    assert texts == {"ca": ["un\ndos\ntres\nun\ndos\n"], "en": ["x" * 99]}


def test_a_name_ends_at_the_first_equals_sign_and_a_path_that_exists_has_none(
    tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run=1").mkdir()
    Path("run=1/tokenizer.model").write_bytes(small_tokenizer.read_bytes())
    for entry, name in (
        ("run=1/tokenizer.model", "run=1"),
        ("run=1", "run=1"),
        ("ours=run=1/tokenizer.model", "ours"),
    ):
        given_name, path = named_path(entry)
        assert open_tokenizer(path, given_name).name == name
    assert named_path("ours=nowhere=2") == ("ours", Path("nowhere=2"))


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path, small_tokenizer: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for path, message in (
        (tmp_path / "none.model", "none.model: no such tokenizer"),
        (tmp_path / "bad.json", "bad.json: not a tokenizer.json"),
        (Path(__file__), "cannot be read as a SentencePiece model"),
        (tmp_path, "holds neither"),
    ):
        with pytest.raises(DataError, match=message):
            open_tokenizer(path)
    with pytest.raises(DataError, match="two tokenizers are called 'a'"):
        measure_fertility([open_tokenizer(small_tokenizer, "a")] * 2, TEXTS)


def test_the_study_is_written_as_csv_json_plots_and_a_page_of_its_own(
    tmp_path: Path, small_tokenizer: Path, corpus_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    command = ["data", "fertility", "--input", str(corpus_files[0]), "--tokenizers", f"one={small_tokenizer}"]
    command += ["--max-bytes", "3000", "--out"]
    assert main([*command, str(tmp_path / "first")]) == 0
    assert "byte fallback" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "first" / "fertility.csv").open()))
    assert [row["language"] for row in rows] == sorted(ARTICLE_1)
    for row in rows:
        assert float(row["tokens_per_word"]) == pytest.approx(
            int(row["tokens"]) / int(row["words"]), abs=1e-6
        )
    contents = json.loads((tmp_path / "first" / "fertility.json").read_text())
    assert contents["conditions"]["tokenizers"] == {"one": "800 ids"}
    page = (tmp_path / "first" / "index.html").read_text()
    assert "<svg" in page and "src=" not in page and "<script" not in page
    assert main([*command, str(tmp_path / "second")]) == 0
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_natural_shares_can_be_those_of_the_corpus_that_the_text_is_a_sample_of() -> None:
    available = {"en": 1000, "eu": 1000}
    sizes = {"en": 9, "eu": 1, "fr": 5}
    for alpha, expected in ((1.0, 90), (0.5, 75), (0.0, 50)):
        plan = plan_sampling(available, alpha=alpha, budget_bytes=100, max_repeats=1, language_sizes=sizes)
        assert plan["en"].target_bytes == pytest.approx(expected)
    with pytest.raises(DataError, match="no size is given for eu"):
        plan_sampling(available, alpha=1, budget_bytes=100, max_repeats=1, language_sizes={"en": 9})


def test_a_tokenizer_can_be_trained_on_the_shares_of_a_corpus(
    tmp_path: Path, corpus_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("source: made up\ntokens: {ca: 1, el: 1, en: 95, eu: 1, no: 1, uk: 1}\n")
    command = ["data", "train-tokenizer", "--input", *map(str, corpus_files), "--vocab-size", "700"]
    command += ["--alpha", "1", "--bytes-budget", "100000", "--out", str(tmp_path / "out")]
    factors = tmp_path / "factors.yaml"
    factors.write_text("{en: 0.2, eu: 2}")
    for options, english, basque in (
        (["--language-sizes", str(sizes)], 95_000, 1_000),
        (["--language-sizes", str(sizes), "--factors", str(factors)], 76_000, 8_000),  # 19 and 2 of 25
    ):
        assert main([*command, *options]) == 0
        languages = json.loads((tmp_path / "out" / "training.json").read_text())["languages"]
        assert languages["en"]["target_bytes"] == english and languages["eu"]["target_bytes"] == basque
    assert main([*command, "--factors", str(factors)]) == 1
    assert "multiplies --language-sizes, which is not given" in capsys.readouterr().err
