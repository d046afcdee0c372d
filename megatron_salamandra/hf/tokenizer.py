"""A Hugging Face fast tokenizer with the same ids as a SentencePiece BPE model.

The usual conversion makes the model's user-defined symbols *added tokens*. Those are cut out of
the raw text before normalisation, and every remainder then gets the word-boundary prefix, so
that a stray ``▁`` follows each run of newlines; and a run of spaces at the start of a text is
cut before the prefix could join it. Here the symbols are cut out *after* normalisation by a
pre-tokenizer instead, as SentencePiece does, and the BPE model itself turns each into its id:

* normaliser: NFC (or the model's own character map), spaces to ``▁``;
* pre-tokenizer: ``▁`` in front of the text, then isolate user-defined symbols, leftmost and longest first;
* model: BPE with byte fallback; the merges of a piece are all its splits into two pieces, ranked
  by the score of the piece.

Characters of a user-defined symbol that have no piece of their own (newline, tab) need one for
the merges to start from. The byte piece they would fall back to takes that name: ``\\n`` instead
of ``<0x0A>``. For ASCII the two mean the same, so ids and decoded text do not change.

Control symbols (``<s>``, ``<|im_start|>``, ...) are registered as special tokens, but text that
merely contains them does not become them, because SentencePiece never does that:
``split_special_tokens`` is set in ``tokenizer_config.json``. A chat template needs the opposite:
``AutoTokenizer.from_pretrained(path, split_special_tokens=False)``. The text behind a control symbol then gets no
word boundary, as in transformers' ``LlamaTokenizer`` without ``legacy``, the class of the published models. Hence
the ``▁`` in front is not put by a normaliser, which runs on each piece between special tokens, but by pre-tokenizers.

The files are written for old readers too: merges as strings, which ``tokenizers`` before 0.20 needs.
"""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from megatron_salamandra.foundation.packages import require
from megatron_salamandra.hf.errors import TokenizerConversionError
from megatron_salamandra.hf.model_files import write_json
from megatron_salamandra.hf.sentencepiece_model import SpecialIds, read_proto, special_ids_of

WORD_BOUNDARY = "\u2581"

UNCONVERTED_MODEL = "tokenizer.sentencepiece"
"""Name in an export of a SentencePiece model that no fast tokenizer reproduces."""


@dataclass(frozen=True)
class ConvertedTokenizer:
    """A converted SentencePiece model.

    Args:
        backend: the ``tokenizers.Tokenizer``.
        special_ids: ids of unknown, begin, end and padding.
        special_tokens: transformers' name of each of these roles -> symbol.
        control_symbols: every control symbol of the model, in order of id.
    """

    backend: Any
    special_ids: SpecialIds
    special_tokens: dict[str, str]
    control_symbols: tuple[str, ...]


def convert_tokenizer(model_path: Path) -> ConvertedTokenizer:
    """Convert a SentencePiece BPE model with byte fallback.

    Raises:
        TokenizerConversionError: not a SentencePiece model, or one whose segmentation a fast
            tokenizer cannot reproduce; the message says why.
    """
    tokenizers = require("tokenizers", extra="hf", purpose="making a fast tokenizer")
    proto = read_proto(model_path)
    _refuse_unsupported(proto, model_path)
    kinds = type(proto.pieces[0])
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    symbols = [piece.piece for piece in proto.pieces if piece.type == kinds.USER_DEFINED]
    controls = [piece.piece for piece in proto.pieces if piece.type == kinds.CONTROL]
    unknown = next(piece.piece for piece in proto.pieces if piece.type == kinds.UNKNOWN)
    _name_ascii_bytes(ids, symbols)
    ranked = [piece for piece in proto.pieces if piece.type == kinds.NORMAL]
    # Stable: of equal scores the lower id goes first.
    ranked.sort(key=lambda piece: -piece.score)
    merges = [
        merge for piece in [*symbols, *(piece.piece for piece in ranked)] for merge in _splits(piece, ids)
    ]
    bpe = tokenizers.models.BPE(
        vocab=ids, merges=merges, unk_token=unknown, byte_fallback=True, fuse_unk=True
    )
    for symbol in symbols:
        if [token.id for token in bpe.tokenize(symbol)] != [ids[symbol]]:
            raise TokenizerConversionError(
                f"{model_path}: the user-defined symbol {symbol!r} is not made of pieces of the model, "
                "so byte-pair merges cannot reach it"
            )
    backend = tokenizers.Tokenizer(bpe)
    backend.normalizer = _normalizer(
        tokenizers.normalizers, proto, sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    )
    backend.pre_tokenizer = _pre_tokenizer(tokenizers, symbols, proto.normalizer_spec.add_dummy_prefix)
    decoders = tokenizers.decoders
    decoding = [decoders.Replace(WORD_BOUNDARY, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        decoding.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(decoding)
    backend.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in (unknown, *controls)]
    )
    special_ids = special_ids_of(proto)
    roles = {
        "unk_token": special_ids.unknown,
        "bos_token": special_ids.begin,
        "eos_token": special_ids.end,
        "pad_token": special_ids.padding,
    }
    return ConvertedTokenizer(
        backend=backend,
        special_ids=special_ids,
        special_tokens={
            role: proto.pieces[number].piece for role, number in roles.items() if number is not None
        },
        control_symbols=tuple(controls),
    )


def write_tokenizer_files(
    directory: Path, converted: ConvertedTokenizer, model_path: Path, *, sequence_length: int
) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and tokenizer.model.

    Args:
        directory: existing directory of the export.
        sequence_length: longest input in tokens, written as ``model_max_length``.
    """
    write_json(directory / "tokenizer.json", _for_old_readers(json.loads(converted.backend.to_str())))
    write_json(directory / "tokenizer_config.json", tokenizer_settings(converted, sequence_length))
    write_json(directory / "special_tokens_map.json", converted.special_tokens)
    shutil.copyfile(model_path, directory / "tokenizer.model")


def tokenizer_settings(converted: ConvertedTokenizer, sequence_length: int) -> dict[str, Any]:
    """The content of tokenizer_config.json.

    The class is the generic one: ``LlamaTokenizer`` rebuilds its pipeline from the vocabulary and
    gives other ids. No ``<s>`` is put in front, because training documents have none.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **converted.special_tokens,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": sequence_length,
        # Generation continues at the right end of each row of a batch.
        "padding_side": "left",
        "split_special_tokens": True,
        "added_tokens_decoder": {
            str(converted.backend.token_to_id(symbol)): {
                "content": symbol,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for symbol in (converted.special_tokens["unk_token"], *converted.control_symbols)
        },
    }


def write_unconverted_tokenizer(directory: Path, model_path: Path, reason: str) -> None:
    """Leave a model that no fast tokenizer reproduces so that transformers does not convert it all the same.

    The model gets a name that transformers does not look for; and ``AutoTokenizer`` fails with ``reason``. Version 4
    quotes a class that it does not know, version 5 the number of an added token that is none.
    """
    shutil.copyfile(model_path, directory / UNCONVERTED_MODEL)
    remedy = f"{reason}; use {UNCONVERTED_MODEL} with the package sentencepiece"
    settings = {"tokenizer_class": remedy, "added_tokens_decoder": {remedy: {"content": ""}}}
    write_json(directory / "tokenizer_config.json", settings)


def _for_old_readers(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The content of tokenizer.json with merges as strings "left right", where no piece holds a space."""
    merges = tokenizer["model"]["merges"]
    if not any(" " in piece for merge in merges for piece in merge):
        tokenizer["model"]["merges"] = [" ".join(merge) for merge in merges]
    return tokenizer


def _refuse_unsupported(proto: Any, path: Path) -> None:
    trainer, normalizer, kinds = proto.trainer_spec, proto.normalizer_spec, type(proto.pieces[0])
    pieces = {piece.piece for piece in proto.pieces}
    loose = next(
        (
            piece.piece
            for piece in proto.pieces
            if piece.type == kinds.NORMAL and not all(character in pieces for character in piece.piece)
        ),
        None,
    )
    reasons = {
        "it is not a BPE model": trainer.model_type != type(trainer).BPE,
        "it has no byte fallback": not trainer.byte_fallback,
        "it puts the word boundary after words": trainer.treat_whitespace_as_suffix,
        "it removes extra whitespace": normalizer.remove_extra_whitespaces,
        "it does not escape whitespace": not normalizer.escape_whitespaces,
        "it has unused pieces": any(piece.type == kinds.UNUSED for piece in proto.pieces),
        f"its piece {loose!r} contains a character without a piece": loose is not None,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise TokenizerConversionError(
            f"{path}: no fast tokenizer can be made with the same ids: {'; '.join(found)}"
        )


def _name_ascii_bytes(ids: dict[str, int], symbols: list[str]) -> None:
    """Rename the byte pieces of ASCII characters that symbols contain and no piece stands for."""
    for character in {character for symbol in symbols for character in symbol}:
        if character not in ids and character.isascii():
            ids[character] = ids.pop(f"<0x{ord(character):02X}>")


def _splits(piece: str, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to write ``piece`` as two pieces."""
    pairs = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
    return [(left, right) for left, right in pairs if left in ids and right in ids]


def _normalizer(normalizers: Any, proto: Any, processor: Any) -> Any:
    steps: list[Any] = []
    if proto.normalizer_spec.precompiled_charsmap:
        steps.append(
            normalizers.NFC()
            if _composes_like_nfc(processor)
            # Works grapheme by grapheme, so only almost like SentencePiece.
            else normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
        )
    steps.append(normalizers.Replace(" ", WORD_BOUNDARY))
    return normalizers.Sequence(steps)


def _pre_tokenizer(tokenizers: Any, symbols: list[str], word_boundary_in_front: bool) -> Any:
    """Put ``▁`` in front of the text (not of what follows a special token), and isolate ``symbols``."""
    pre = tokenizers.pre_tokenizers
    steps = []
    if word_boundary_in_front:
        # "first" means the piece at the start of the text, but adds nothing if that starts with the replacement
        # already. SentencePiece adds one to a text that starts with spaces too. Normalised text holds no plain
        # space, so the first step always adds one, and the second turns it into a word boundary.
        steps += [
            pre.Metaspace(replacement=" ", prepend_scheme="first", split=False),
            pre.Metaspace(replacement=WORD_BOUNDARY, prepend_scheme="never", split=False),
        ]
    if symbols:
        pattern = "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))
        steps.append(pre.Split(tokenizers.Regex(pattern), "isolated"))
    return pre.Sequence(steps)


def _composes_like_nfc(processor: Any) -> bool:
    """Whether the model's normalisation is NFC, for all but a few characters and decompositions.

    A few, because the model's rules and Python's may come from different versions of Unicode.
    """
    characters = [chr(code) for code in range(ord("!"), 0x30000) if not 0xD800 <= code < 0xE000]
    decomposed = [unicodedata.normalize("NFD", character) for character in characters]
    texts = [
        *characters,
        *(text for text, character in zip(decomposed, characters, strict=True) if text != character),
    ]
    # Nothing composes across a newline, so one call serves all.
    normalized = processor.normalize("\n".join(texts)).removeprefix(WORD_BOUNDARY).split("\n")
    if len(normalized) != len(texts):
        return False
    expected = (unicodedata.normalize("NFC", text) for text in texts)
    different: int = sum(ours != theirs for ours, theirs in zip(normalized, expected, strict=True))
    return different < 200
