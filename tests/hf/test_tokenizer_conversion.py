"""The exported tokenizer against SentencePiece."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_salamandra.hf import TokenizerConversionError, convert_tokenizer, probe_texts, verify_tokenizer
from megatron_salamandra.hf.tokenizer import write_tokenizer_files
from megatron_salamandra.hf.tokenizer_verification import ChatReference

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def exported(tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    write_tokenizer_files(out, convert_tokenizer(tokenizer_model), tokenizer_model, sequence_length=64)
    return out


@pytest.fixture(scope="module")
def pair(tokenizer_model: Path, exported: Path) -> tuple[Any, Any]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_model))
    return processor, transformers.AutoTokenizer.from_pretrained(str(exported))


@pytest.fixture(scope="module")
def chat_pair(tokenizer_model: Path, exported: Path) -> tuple[ChatReference, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(exported), split_special_tokens=False)
    return ChatReference(tokenizer_model), tokenizer


# Pieces in which the two could differ, mixed with any text at all.
awkward = st.sampled_from(
    [
        "\n",
        "\t",
        " ",
        "  ",
        "\\r",
        "\\",
        "\r",
        "▁",
        "<s>",
        "</s>",
        "<|im_start|>",
        "<0x0A>",
        "aa",
        "-",
        "é",
        "\x00",
    ]
)
texts = st.lists(st.one_of(awkward, st.text(max_size=4)), max_size=30).map("".join)


@settings(max_examples=600, deadline=None)
@given(texts.map(lambda text: unicodedata.normalize("NFC", text)))
def test_any_nfc_text_has_the_ids_and_the_decoded_text_of_sentencepiece(
    pair: tuple[Any, Any], text: str
) -> None:
    processor, tokenizer = pair
    ids = processor.encode(text)
    assert tokenizer(text, verbose=False)["input_ids"] == ids
    assert tokenizer.decode(ids) == processor.decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="a-=.\n\t ", max_size=80))
def test_runs_of_one_character_merge_as_in_sentencepiece(pair: tuple[Any, Any], text: str) -> None:
    processor, tokenizer = pair
    assert tokenizer(text, verbose=False)["input_ids"] == processor.encode(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=699), max_size=12))
def test_any_ids_decode_to_valid_text_as_in_sentencepiece(pair: tuple[Any, Any], ids: list[int]) -> None:
    processor, tokenizer = pair
    text = processor.decode(ids)
    plain = all(not (processor.is_byte(i) or processor.is_unknown(i) or processor.is_control(i)) for i in ids)
    if plain:
        assert tokenizer.decode(ids) == text


def test_decomposed_accents_are_composed(pair: tuple[Any, Any]) -> None:
    processor, tokenizer = pair
    text = unicodedata.normalize("NFD", "éssers són iguals, größer, Όλοι ελεύθεροι, своём")
    assert text != unicodedata.normalize("NFC", text)
    assert tokenizer(text)["input_ids"] == processor.encode(text)


def test_control_symbols_in_text_stay_text_unless_asked(pair: tuple[Any, Any], exported: Path) -> None:
    processor, tokenizer = pair
    assert 4 not in tokenizer("<|im_start|>user\n<|im_end|>")["input_ids"]
    chat = transformers.AutoTokenizer.from_pretrained(str(exported), split_special_tokens=False)
    assert chat("<|im_start|>user\n<|im_end|>")["input_ids"].count(4) == 1
    assert tokenizer.decode([4, *processor.encode("a"), 2], skip_special_tokens=True) == "a"


def test_text_behind_a_control_symbol_gets_no_word_boundary(exported: Path) -> None:
    chat = transformers.AutoTokenizer.from_pretrained(str(exported), split_special_tokens=False)
    text = "<|im_start|>user\nhola<|im_end|>\n<|im_start|> assistant\n"
    ids = chat(text)["input_ids"]
    pieces = chat.convert_ids_to_tokens(ids)
    assert pieces[:2] == ["<|im_start|>", "u"]
    assert [i for i, piece in enumerate(pieces) if piece.startswith("▁")] == [
        len(pieces) - 1 - pieces[::-1].index("<|im_start|>") + 1  # the space that is written
    ]
    assert chat.decode(ids) == text
    assert chat.convert_ids_to_tokens(chat("hola")["input_ids"])[0].startswith("▁")


@settings(max_examples=400, deadline=None)
@given(texts.map(lambda text: unicodedata.normalize("NFC", text)))
def test_any_chat_has_the_ids_and_the_text_of_sentencepiece_between_its_symbols(
    chat_pair: tuple[ChatReference, Any], text: str
) -> None:
    reference, tokenizer = chat_pair
    ids = reference.encode(text)
    assert tokenizer(text, verbose=False)["input_ids"] == ids
    assert tokenizer.decode(ids) == reference.decode(ids)


def test_chats_become_the_ids_of_the_published_tokenizer_class(
    chat_pair: tuple[ChatReference, Any],
) -> None:
    """By hand, what LlamaTokenizer(legacy=False) of transformers 4 gives: a boundary at the very start only."""
    reference, _ = chat_pair
    processor = reference._begin
    ids = {piece: processor.piece_to_id(piece) for piece in ("<|im_start|>", "▁", "u", "<0x0A>", "▁u")}
    assert reference.encode("<|im_start|>u") == [ids["<|im_start|>"], ids["u"]]
    assert reference.encode("\n<|im_start|>\n") == [
        ids["▁"],
        ids["<0x0A>"],
        ids["<|im_start|>"],
        ids["<0x0A>"],
    ]
    assert reference.encode("<|im_start|> u") == [ids["<|im_start|>"], *processor.encode("u")]


def test_special_ids_and_vocabulary_are_those_of_the_model(pair: tuple[Any, Any]) -> None:
    processor, tokenizer = pair
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 3)
    assert len(tokenizer) == processor.get_piece_size() == 700
    assert sorted(tokenizer.get_vocab().values()) == list(range(700))
    renamed = {tokenizer.convert_ids_to_tokens(i) for i in range(700) if processor.is_byte(i)} - {
        f"<0x{byte:02X}>" for byte in range(256)
    }
    assert renamed <= {"\n", "\t", "\\", "r"}


def test_saved_again_by_transformers_it_stays_exact(
    pair: tuple[Any, Any], tokenizer_model: Path, tmp_path: Path
) -> None:
    pair[1].save_pretrained(tmp_path)
    assert verify_tokenizer(tmp_path, tokenizer_model, probe_texts(300)).exact


def test_verification_counts_and_shows_differences(
    exported: Path, tokenizer_model: Path, tmp_path: Path
) -> None:
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "tokenizer.json").read_text()
    broken = whole.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"', 1)
    (tmp_path / "tokenizer.json").write_text(broken)
    report = verify_tokenizer(tmp_path, tokenizer_model, ["", "lliures", "\nhumans"])
    assert not report.exact
    assert (report.documents, report.different_ids, report.different_ids_nfc) == (3, 2, 2)
    assert 0 < report.different_chats < report.chats
    assert "after 0 equal tokens" in (report.first_difference or "")
    assert "NOT the same" in report.summary()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False},
            "not a BPE model",
        ),
        ({"model_type": "bpe", "remove_extra_whitespaces": False}, "no byte fallback"),
        ({"model_type": "bpe", "byte_fallback": True}, "removes extra whitespace"),
        (
            {
                "model_type": "bpe",
                "byte_fallback": True,
                "remove_extra_whitespaces": False,
                "user_defined_symbols": ["<tool>"],
            },
            "'<tool>' is not made of pieces",
        ),
    ],
)
def test_models_that_cannot_be_reproduced_are_refused_with_the_reason(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["uns quants mots per entrenar", "i uns altres mots més"] * 30),
        model_prefix=str(tmp_path / "odd"),
        vocab_size=300 if options.get("byte_fallback") else 40,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    with pytest.raises(TokenizerConversionError, match=reason):
        convert_tokenizer(tmp_path / "odd.model")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(TokenizerConversionError, match="not a readable SentencePiece model"):
        convert_tokenizer(tmp_path / "tokenizer.model")
