"""Long texts are encoded in pieces, with the ids of the whole, and in memory that does not run away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from salamandra_data.tokenization.backends import GuardedEncoder, TextBatch, long_texts
from salamandra_data.tokenization.backends.long_texts import encode_in_pieces, may_be_cut, pieces_of
from salamandra_data.tokenization.encoder import Encoder, TokenRows

LETTERS = "ab \u2581\n\t\u00a0\u0301e\u200b\u3000é</s>0 "


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "LONG_BYTES", 0)
    monkeypatch.setattr(long_texts, "_PIECE_BYTES", 0)


@pytest.mark.usefixtures("short_pieces")
@given(
    texts=st.lists(
        st.text(st.sampled_from(LETTERS), min_size=1, max_size=40)
        | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(" a b ".join),
        min_size=1,
        max_size=12,
    )
)
@example(texts=["a b", "a\u2581 b", "a \u2581b", " a b ", "a  b", "e \u0301 e", "\n \n", "a b" * 20])
@settings(max_examples=300, deadline=None)
def test_pieces_have_the_ids_of_the_whole(small_tokenizer: Path, texts: list[str]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_tokenizer))
    encoder = Encoder(small_tokenizer)
    rows = encode_in_pieces(encoder.encode_rows, [text.encode() for text in texts], small_tokenizer)
    assert [row.tolist() for row in rows.split()] == [processor.encode(text) for text in texts]


@given(text=st.text(st.sampled_from("ab \u2581é"), max_size=60), size=st.integers(0, 20))
@settings(max_examples=200)
def test_cuts_lose_single_spaces_only(text: str, size: int) -> None:
    pieces = [piece.decode() for piece in pieces_of(text.encode(), size)]
    assert " ".join(pieces) == text
    for left, right in pairwise(pieces):
        assert len(left.encode()) >= size
        assert left[-1:] not in (" ", "\u2581", "") and right[:1] not in (" ", "\u2581", "")


def test_short_texts_are_encoded_together_and_long_ones_in_calls_of_a_megabyte(small_tokenizer: Path) -> None:
    calls: list[list[int]] = []

    def encode(texts: list[bytes]) -> TokenRows:
        calls.append([len(text) for text in texts])
        return TokenRows.joined([np.zeros(len(text), dtype=np.int32) for text in texts])

    encode_in_pieces(encode, [b"a b"] * 7, small_tokenizer)  # type: ignore[arg-type]
    assert calls == [[3] * 7]
    calls.clear()
    rows = encode_in_pieces(encode, [b"a b", b"word " * 600_000, b"c"], small_tokenizer)  # type: ignore[arg-type]
    assert calls[0] == [3] and calls[-1] == [1]
    assert all(sum(call) < 1.1 * 2**20 for call in calls)
    assert len(rows.split()) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"add_dummy_prefix": False},
        {"user_defined_symbols": ["a\u2581b"]},
        {"split_by_whitespace": False},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"treat_whitespace_as_suffix": True},
        {"model_type": "unigram", "hard_vocab_limit": False},
    ],
)
@pytest.mark.usefixtures("short_pieces")
def test_texts_stay_whole_for_models_that_could_tell(
    tmp_path: Path, corpus_files: list[Path], changes: dict[str, object]
) -> None:
    options: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": 600,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    text = tmp_path / "text.txt"
    lines = [json.loads(line)["text"] for line in corpus_files[0].open()] + ["de la casa"] * 3000
    text.write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(tmp_path / "plain"), **options)
    assert may_be_cut(tmp_path / "plain.model")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "model"), **{**options, **changes}
    )
    model = tmp_path / "model.model"
    assert not may_be_cut(model)
    texts = [line.encode() for line in text.read_text().splitlines()[:200] if line]
    whole = Encoder(model).encode_rows(texts)
    assert np.array_equal(encode_in_pieces(Encoder(model).encode_rows, texts, model).ids, whole.ids)


def test_the_guard_compares_long_texts_too(small_tokenizer: Path) -> None:
    class OneIdWrong:
        name, version = "wrong", "0"

        def encode(self, texts: list[bytes]) -> TokenRows:
            rows = Encoder(small_tokenizer).encode_rows(texts)
            rows.ids[-1] += 1
            return rows

    long = b"bona tarda " * 100_000
    batch = TextBatch([long], np.array([True]), np.array([True]), place=lambda number: "in.jsonl:1")
    with pytest.raises(ValueError, match=r"in\.jsonl:1: wrong 0 differs from SentencePiece"):
        GuardedEncoder(Encoder(small_tokenizer), OneIdWrong()).encode(batch)  # type: ignore[arg-type]


SUPPORT = Path(__file__).parents[2] / "support"
MEASURE = """
import resource, sys
from pathlib import Path
from tokenize_job import tokenize_job
from salamandra_data.tokenization import tokenize_documents
source, model, out = map(Path, sys.argv[1:])
result = tokenize_documents(tokenize_job([source], model, out, encoder="sentencepiece"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_for_one_large_document_is_a_few_times_its_size(tmp_path: Path, small_tokenizer: Path) -> None:
    peaks = []
    for megabytes in (1, 13):
        source = tmp_path / f"{megabytes}.jsonl"
        text = "u\u0308ber alles e\u0301s clar "  # not in NFC, so SentencePiece has it
        source.write_text(
            json.dumps({"text": text * (megabytes * 10**6 // len(text.encode())), "language": "de"})
        )
        command = [
            sys.executable,
            "-c",
            MEASURE,
            str(source),
            str(small_tokenizer),
            str(tmp_path / f"out-{megabytes}"),
        ]
        support = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": support}
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 15 * 12, peaks  # MiB; whole, the text takes some 50 times its size
