"""Reading what a SentencePiece model file says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.packages import require
from megatron_salamandra.hf.errors import TokenizerConversionError
from salamandra_data.sentencepiece_file import open_sentencepiece


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special symbols; None where the model has no such symbol."""

    unknown: int
    begin: int | None
    end: int | None
    padding: int | None


def read_special_ids(model_path: Path, vocab_size: int) -> SpecialIds:
    """Ids of the special symbols of a SentencePiece model of any type.

    Args:
        vocab_size: rows of the model's vocabulary matrices, which must cover the tokenizer.
    Raises:
        TokenizerConversionError: not a SentencePiece model, or more pieces than ``vocab_size``.
    """
    proto = read_proto(model_path)
    if len(proto.pieces) > vocab_size:
        raise TokenizerConversionError(
            f"{model_path}: {len(proto.pieces)} pieces do not fit model.vocab_size = {vocab_size}: "
            "the tokenizer is not the one this model was trained with"
        )
    return special_ids_of(proto)


def special_ids_of(proto: Any) -> SpecialIds:
    """Special ids of a parsed model."""
    spec = proto.trainer_spec
    return SpecialIds(
        unknown=spec.unk_id,
        begin=_id_or_none(spec.bos_id),
        end=_id_or_none(spec.eos_id),
        padding=_id_or_none(spec.pad_id),
    )


def read_proto(path: Path) -> Any:
    """Parse a ``.model`` file into sentencepiece's own ``ModelProto``.

    Raises:
        TokenizerConversionError: not a SentencePiece model.
        MissingPackage: protobuf is not installed.
    """
    module = require(
        "sentencepiece.sentencepiece_model_pb2", extra="hf", purpose="reading a SentencePiece model"
    )
    proto = module.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
        open_sentencepiece(path)
    except FileNotFoundError:
        raise
    # protobuf raises DecodeError, sentencepiece RuntimeError or its own subclasses by version.
    except Exception as error:
        raise TokenizerConversionError(f"{path}: not a readable SentencePiece model: {error}") from error
    return proto


def _id_or_none(number: int) -> int | None:
    return number if number >= 0 else None
