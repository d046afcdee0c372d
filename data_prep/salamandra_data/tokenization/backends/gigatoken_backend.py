"""gigatoken, given the model in the one form in which it agrees with SentencePiece.

Its own conversion, like others', puts a space mark behind every user-defined piece and reads control symbols out of
the text. Here only user-defined pieces are symbols, nothing is normalized but spaces, and the first space is part of
what is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import orjson

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.signals import interruption_deferred
from salamandra_data.tokenization.backends.backend import INSTALL, BackendUnavailable
from salamandra_data.tokenization.backends.model_file import SPACE, ModelFile, read_model
from salamandra_data.tokenization.encoder import TokenRows

_CONVERTED = "gigatoken.json"


class GigatokenBackend:
    """One model in gigatoken.

    Args:
        model: SentencePiece model file, which :func:`exactness.check_model` accepts.
        cache: directory in which the converted model is kept for other processes.
    Raises:
        BackendUnavailable: the package is missing or refuses the model.
    """

    name = "gigatoken"

    def __init__(self, model: Path, cache: Path) -> None:
        try:
            import gigatoken
        except ImportError as error:
            raise BackendUnavailable(f"gigatoken is not installed ({INSTALL})") from error
        self.version = version("gigatoken")
        converted = cache / _CONVERTED
        self._prefix = b" " if read_model(model).normalizer.add_dummy_prefix else b""
        if not converted.exists():
            atomic_write_bytes(converted, converted_model(read_model(model)))
        try:
            self._encode = gigatoken.Tokenizer.from_json(converted.read_bytes()).encode
        except ValueError as error:
            raise BackendUnavailable(f"gigatoken cannot read the model: {error}") from error

    def encode(self, texts: Sequence[bytes]) -> TokenRows:
        """As :meth:`FastBackend.encode`; text by text, which is faster than its batches and needs no awkward."""
        encode, prefix = self._encode, self._prefix
        with (
            interruption_deferred()
        ):  # gigatoken calls Python, and goes on without what an interruption ended there
            return TokenRows.joined([encode(prefix + text) for text in texts])


def converted_model(model: ModelFile) -> bytes:
    """The model as the ``tokenizer.json`` that gigatoken reads."""
    symbols = [
        {
            "id": number,
            "content": piece.replace(SPACE, " "),
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,  # true would be right as well, and many times slower
            "special": False,
        }
        for piece, number in model.user_defined().items()
    ]
    return orjson.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": symbols,
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": model.trainer.unk_piece,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {piece: number for number, (piece, _, _) in enumerate(model.pieces)},
                "merges": _merges(model.scores()),
            },
        }
    )


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two pieces, the highest score first."""
    return [
        (left, right)
        for piece in sorted(scores, key=scores.__getitem__, reverse=True)
        for cut in range(1, len(piece))
        if (left := piece[:cut]) in scores and (right := piece[cut:]) in scores
    ]
