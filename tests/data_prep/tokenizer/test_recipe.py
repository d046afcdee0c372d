"""The tokenizer has the published ids, normalizes to NFC and is trained on the asked-for mix of languages."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentKeys
from salamandra_data.tokenizer import FIRST_BPE_ID, TokenizerTraining, plan_sampling, train_tokenizer
from salamandra_data.tokenizer.nfc_rules import nfc_rules


@pytest.fixture(scope="module")
def processor(small_tokenizer: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))


def test_ids_are_those_of_the_published_tokenizer(processor: sentencepiece.SentencePieceProcessor) -> None:
    pieces = [processor.id_to_piece(number) for number in range(FIRST_BPE_ID)]
    assert pieces[:6] == ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    assert pieces[6:104] == [f"<|reserved_token_{number}|>" for number in range(1, 99)]
    assert pieces[104] == "\\r"
    assert pieces[105:128] == ["\u2581" * count for count in range(2, 25)]
    assert pieces[128:133] == ["\t" * count for count in range(2, 7)]
    assert pieces[133:135] == ["\n\n", "\n\n\n"]
    assert pieces[135:391] == [f"<0x{value:02X}>" for value in range(256)]
    assert FIRST_BPE_ID == 391
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()) == (0, 1, 2, 3)
    assert all(processor.is_control(number) for number in (1, 2, 3, *range(4, 104)))
    assert all(processor.is_byte(number) for number in range(135, 391))
    assert not any(
        processor.is_byte(number) or processor.is_control(number) for number in (*range(104, 135), 391)
    )


def test_whitespace_digits_and_controls_are_encoded_as_published(
    processor: sentencepiece.SentencePieceProcessor,
) -> None:
    assert processor.encode("a\n\n\t\t    b", out_type=int).count(133) == 1
    assert 128 in processor.encode("a\t\tb", out_type=int)
    assert 108 in processor.encode("a     b", out_type=int)
    assert processor.encode("a\rb", out_type=int).count(135 + 0x0D) == 1
    assert 104 in processor.encode("a\\rb", out_type=int)
    digits = processor.encode("x2026", out_type=str)
    assert "2026" not in "|".join(digits)
    assert not {1, 2, 3, 4, 5} & set(processor.encode("</s><s><pad><|im_start|>", out_type=int))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_any_text_comes_back_in_nfc(processor: sentencepiece.SentencePieceProcessor, text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert processor.decode(processor.encode(composed)) == composed


def test_normalization_of_every_character_is_nfc(processor: sentencepiece.SentencePieceProcessor) -> None:
    normalizer = processor
    changed = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if not 0xD800 <= code < 0xE000 and unicodedata.normalize("NFD", chr(code)) != chr(code)
    ]
    for form in ("NFC", "NFD"):
        text = "\n".join(unicodedata.normalize(form, character) for character in changed)
        assert normalizer.normalize(text).replace("\u2581", "") == "\n".join(
            unicodedata.normalize("NFC", character) for character in changed
        )
    assert normalizer.normalize("\n".join(changed)).replace("\u2581", "") == "\n".join(
        unicodedata.normalize("NFC", character) for character in changed
    )


LETTERS = st.sampled_from(
    [chr(code) for code in range(0xC0, 0x2000) if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo")]
)


@given(st.lists(LETTERS, max_size=12))
def test_decomposed_text_is_composed_as_python_does(
    processor: sentencepiece.SentencePieceProcessor, letters: list[str]
) -> None:
    text = "".join(letters)
    for form in ("NFC", "NFD"):
        normalized = processor.normalize(unicodedata.normalize(form, text))
        assert normalized.replace("\u2581", "") == unicodedata.normalize("NFC", text)


def test_rules_rewrite_only_what_is_not_nfc_to_what_is() -> None:
    rules = nfc_rules()
    assert len(rules) > 13_655
    assert all(unicodedata.normalize("NFC", source) == target != source for source, target in rules.items())
    assert rules["e\u0302\u0323"] == rules["e\u0323\u0302"] == rules["\u00ea\u0323"] == "\u1ec7"
    assert rules["\u1112\u1161\u11ab"] == rules["\ud558\u11ab"] == "\ud55c"


def test_training_is_reproducible_and_names_no_path_of_this_machine(
    tmp_path: Path, small_tokenizer: Path
) -> None:
    corpus = small_tokenizer.parent.parent / "corpus.jsonl"
    again = train_tokenizer(TokenizerTraining([corpus], vocab_size=800), tmp_path / "again")
    assert again.model.read_bytes() == small_tokenizer.read_bytes()
    assert b"/tmp" not in again.model.read_bytes() and str(tmp_path).encode() not in again.model.read_bytes()
    record = json.loads((tmp_path / "again" / "training.json").read_text())
    assert record["sentencepiece_version"] == sentencepiece.__version__
    assert record["options"]["vocab_size"] == 800
    assert set(record["languages"]) == {"ca", "el", "en", "eu", "no", "uk"}
    vocabulary = (tmp_path / "again" / "tokenizer.vocab").read_text().splitlines()
    assert vocabulary[2].startswith("</s>\t")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "tokenizer.model",
        "tokenizer.vocab",
        "training.json",
    ]


SIZES = {"en": 8_000, "ca": 1_000, "oc": 10}


def test_uniform_sampling_gives_every_language_the_same_bytes() -> None:
    samples = plan_sampling(SIZES, alpha=0, budget_bytes=300, max_repeats=10)
    assert [sample.target_bytes for sample in samples.values()] == [100, 100, 100]
    assert samples["oc"].repeats == 10


def test_what_a_small_language_cannot_fill_goes_to_the_others() -> None:
    samples = plan_sampling(SIZES, alpha=0, budget_bytes=3_000, max_repeats=2)
    assert samples["oc"].target_bytes == 20
    assert samples["en"].target_bytes == samples["ca"].target_bytes == 1_490


def test_alpha_one_keeps_natural_shares() -> None:
    samples = plan_sampling(SIZES, alpha=1, budget_bytes=901, max_repeats=1)
    assert [round(samples[language].repeats, 9) for language in SIZES] == [0.1, 0.1, 0.1]


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers(0, 10**9), min_size=1),
    st.floats(0, 1),
    st.integers(1, 10**9),
)
def test_the_budget_is_spent_unless_all_text_is(sizes: dict[str, int], alpha: float, budget: int) -> None:
    if not any(sizes.values()):
        with pytest.raises(DataError):
            plan_sampling(sizes, alpha=alpha, budget_bytes=budget, max_repeats=3)
        return
    samples = plan_sampling(sizes, alpha=alpha, budget_bytes=budget, max_repeats=3)
    spent = sum(sample.target_bytes for sample in samples.values())
    assert spent == pytest.approx(min(budget, 3 * sum(sizes.values())))
    assert all(0 <= sample.repeats <= 3.0001 for sample in samples.values())


def test_used_bytes_are_uniform_on_skewed_text(tmp_path: Path) -> None:
    with open(tmp_path / "skewed.jsonl", "w") as stream:
        for language, count in (("en", 4000), ("oc", 400)):
            for number in range(count):
                text = f"{language} line of words {number}"
                stream.write(json.dumps({"text": text, "language": language}) + "\n")
    trained = train_tokenizer(TokenizerTraining([tmp_path / "skewed.jsonl"], vocab_size=430), tmp_path)
    assert trained.used_bytes["oc"] == pytest.approx(trained.used_bytes["en"], rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 391}, "ids 0 to 390 are fixed"),
        ({"vocab_size": 395}, "the characters of the text alone need"),
        ({"vocab_size": 200_000}, "supports at most"),
        ({"vocab_size": 500, "alpha": 1.5}, "alpha"),
        ({"vocab_size": 500, "budget_bytes": -5}, "bytes budget"),
        ({"vocab_size": 500, "max_repeats": 0.5}, "max repeats"),
        ({"vocab_size": 500, "keys": DocumentKeys(language="a/b")}, "--language 'a/b'"),
        ({"vocab_size": 500, "keys": DocumentKeys("body")}, r"corpus.jsonl:1: key 'body' is missing"),
    ],
)
def test_impossible_training_is_refused(
    tmp_path: Path, small_tokenizer: Path, options: dict[str, object], message: str
) -> None:
    corpus = small_tokenizer.parent.parent / "corpus.jsonl"
    with pytest.raises(DataError, match=message):
        train_tokenizer(TokenizerTraining([corpus], **options), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": "", "language": "oc"}\n')
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(TokenizerTraining([tmp_path / "empty.jsonl"], vocab_size=500), tmp_path / "out")
