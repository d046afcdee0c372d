"""Fast encoders give SentencePiece's ids, or are refused, or end the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenize_job import tokenize_job

from salamandra_data.errors import DataError
from salamandra_data.shards import EncoderRecord, ShardManifest
from salamandra_data.tokenization import tokenize_documents
from salamandra_data.tokenization.backends import (
    GuardedEncoder,
    TextBatch,
    choose_encoder,
    gigatoken_backend,
    selection,
)
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.encoder import Encoder, TokenRows

FAST = ["gigatoken", "kitoken"]
ALPHABETS = (
    "ab ",
    "aA .,\n\t\r",
    "  \u2581\u00a0\u3000",
    "e\u0301o\u0323\u0302\u1e69",
    "\u1100\u1161\u11a8\uac00\uac01",
    "αβγάώ ПривітЇї",
    "<s>/|im_startend\x00",
    "0123456789.,-",
    "😀\u200d👩🏳\ufe0f\U000e0001\ud7ff\ue000\U0010ffff",
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    *(st.text(st.sampled_from(alphabet), max_size=80) for alphabet in ALPHABETS),
)


@pytest.fixture(autouse=True)
def _backends_loaded_anew() -> None:
    selection.load_backend.cache_clear()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def guarded(name: str, model: Path, cache: Path) -> GuardedEncoder:
    return GuardedEncoder(Encoder(model), selection.load_backend(name, model, cache))


def batch(texts: list[str], checked: bool = False) -> TextBatch:
    raw = [text.encode() for text in texts]
    fast = np.array([may_be_fast(text) for text in texts], dtype=bool)
    return TextBatch(raw, fast, np.full(len(raw), checked), place=lambda number: f"in.jsonl:{number + 1}")


@pytest.mark.parametrize("name", FAST)
@given(texts=st.lists(TEXT, min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_sentencepieces_ids(
    name: str, small_tokenizer: Path, cache: Path, texts: list[str]
) -> None:
    pytest.importorskip(name)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    rows = guarded(name, small_tokenizer, cache).encode(batch(texts)).split()
    assert [row.tolist() for row in rows] == [processor.encode(text) for text in texts]


@pytest.mark.parametrize("name", FAST)
def test_a_word_of_a_megabyte_and_control_symbols_are_exact(
    name: str, small_tokenizer: Path, cache: Path
) -> None:
    pytest.importorskip(name)
    texts = ["ab" * 500_000, "</s><|im_start|>user\nhola<|im_end|><pad><unk><0x0A>", " " * 1000, "\r\n\r\n"]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    encoder = guarded(name, small_tokenizer, cache)
    assert [row.tolist() for row in encoder.encode(batch(texts)).split()] == [
        processor.encode(text) for text in texts
    ]
    assert encoder.documents_by_reference == 0


def test_texts_that_normalization_would_change_go_to_sentencepiece(
    small_tokenizer: Path, cache: Path
) -> None:
    pytest.importorskip("kitoken")
    encoder = guarded("kitoken", small_tokenizer, cache)
    encoder.encode(batch(["plain", "e\u0301", "\u2581", "a\x00b", "è"]))
    assert encoder.documents_by_reference == 3


@pytest.mark.parametrize("name", FAST)
def test_shards_are_the_same_bytes_and_manifests_say_who_made_them(
    tmp_path: Path, corpus_files: list[Path], small_tokenizer: Path, name: str
) -> None:
    pytest.importorskip(name)
    for encoder in ("sentencepiece", name):
        job = tokenize_job(
            corpus_files,
            small_tokenizer,
            tmp_path / encoder,
            encoder=encoder,
            shard_tokens=30_000,
            guard_share=0.2,
        )
        result = tokenize_documents(job)
        assert result.encoder.name == encoder
    slow, fast = tmp_path / "sentencepiece", tmp_path / name
    assert {path.name for path in slow.iterdir()} == {path.name for path in fast.iterdir()}
    checked = documents = 0
    for path in slow.glob("*.bin"):
        other = fast / path.name
        assert path.read_bytes() == other.read_bytes()
        assert path.with_suffix(".idx").read_bytes() == other.with_suffix(".idx").read_bytes()
        record = ShardManifest.load(other.with_suffix("")).encoder
        assert record is not None and record.name == name and record.documents_checked >= 8
        assert record.guard_share == 0.2 and record.sentencepiece_version == sentencepiece.__version__
        checked += record.documents_checked
        documents += ShardManifest.load(other.with_suffix("")).documents
        plain = ShardManifest.load(path.with_suffix("")).encoder
        assert isinstance(plain, EncoderRecord) and plain.documents_checked == 0
    assert result.documents_checked == checked and 0.2 * documents < checked < 0.9 * documents


class OneIdWrong:
    """Right but for one id of the texts that hold a word."""

    name, version = "kitoken", "0"

    def __init__(self, model: Path, cache: Path) -> None:
        self._right = Encoder(model)

    def encode(self, texts: list[bytes]) -> TokenRows:
        rows = self._right.encode_rows(texts).split()
        return TokenRows.joined(
            [
                row if b"unlucky" not in text else np.concatenate([row[:3], row[3:4] + 1, row[4:]])
                for row, text in zip(rows, texts, strict=True)
            ]
        )


def test_the_guard_ends_the_run_at_the_first_difference(
    tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(selection._BACKENDS, "kitoken", OneIdWrong)
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"text": f"word {n} " * 9, "language": "en"}) + "\n" for n in range(40))
    )
    with source.open("a") as stream:
        stream.write(json.dumps({"text": "an unlucky document", "language": "en"}) + "\n")
    job = tokenize_job([source], small_tokenizer, tmp_path / "out", encoder="kitoken", guard_share=1.0)
    with pytest.raises(
        DataError, match=r"in\.jsonl:41: kitoken 0 differs from SentencePiece .* at token 3 "
    ) as caught:
        tokenize_documents(job)
    assert "run again with --encoder sentencepiece" in str(caught.value)
    assert not list((tmp_path / "out").glob("*.bin"))


def test_a_wrong_conversion_is_found_before_the_run(
    tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gigatoken")
    right = gigatoken_backend.converted_model

    def with_space_mark_after_symbols(
        model: object,
    ) -> bytes:  # as common conversions of SentencePiece models do
        values = json.loads(right(model))  # type: ignore[arg-type]
        values["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, values["normalizer"]],
        }
        return json.dumps(values).encode()

    monkeypatch.setattr(gigatoken_backend, "converted_model", with_space_mark_after_symbols)
    reference = Encoder(small_tokenizer)
    with pytest.raises(
        DataError, match=r"--encoder gigatoken: gigatoken .* does not agree with SentencePiece"
    ):
        choose_encoder("gigatoken", reference, small_tokenizer, tmp_path)
    choice = choose_encoder("auto", reference, small_tokenizer, tmp_path)
    assert choice.name != "gigatoken" and "does not agree" in choice.passed_over[0]


def test_a_missing_package_is_passed_over_or_named(
    tmp_path: Path, small_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FAST:
        monkeypatch.setitem(sys.modules, name, None)
    reference = Encoder(small_tokenizer)
    choice = choose_encoder("auto", reference, small_tokenizer, tmp_path)
    assert choice.name == "sentencepiece" and len(choice.passed_over) == 2
    with pytest.raises(
        DataError, match=r"gigatoken is not installed \(pip install 'megatron-salamandra\[data\]'\)"
    ):
        choose_encoder("gigatoken", reference, small_tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, "it rewrites"),
        ({"model_type": "unigram"}, "it is not BPE"),
        ({"byte_fallback": False}, "it has no byte fallback"),
        ({"remove_extra_whitespaces": True}, "it removes extra spaces"),
        ({"user_defined_symbols": ["a b"]}, "holds a space"),
    ],
)
def test_models_that_no_fast_encoder_can_have_are_encoded_by_sentencepiece(
    tmp_path: Path, corpus_files: list[Path], changes: dict[str, object], reason: str
) -> None:
    options: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": 600,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus_files[0]), model_prefix=str(tmp_path / "model"), **{**options, **changes}
    )
    choice = choose_encoder("auto", Encoder(tmp_path / "model.model"), tmp_path / "model.model", tmp_path)
    assert choice.name == "sentencepiece" and reason in choice.passed_over[0]
    assert len(choice.passed_over) == 1  # a fault of the model is told once
