"""What a tokenization run is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentKeys
from salamandra_data.storage import Location
from salamandra_data.tokenization.backends import ENCODERS

DEFAULT_SHARD_TOKENS = 1 << 28
DEFAULT_GUARD_SHARE = 0.005


@dataclass(frozen=True)
class TokenizeJob:
    """Options of one run.

    Attributes:
        inputs: files, directories or patterns, or fsspec URLs of these.
        tokenizer: SentencePiece model file, or a directory with ``tokenizer.model``.
        out: directory for the shards; a copy of the tokenizer goes there too.
        keys: where text and language are in a record.
        workers: processes; 1 works in this process.
        validation_fraction: share of documents, chosen by a hash of their text, for ``validation`` shards.
        seed: order of the documents.
        shard_tokens: tokens per shard, about; shards are cut by size of text before it is encoded.
        skip_malformed: pass over malformed lines and list them in a file, instead of stopping at the first.
        encoder: ``sentencepiece``, a fast encoder that gives the same ids, or ``auto`` for the fastest there is.
        guard_share: share of documents, chosen by their place in the shuffle, that SentencePiece encodes as well when
            a fast encoder is at work; the first documents of each shard are always among them.
        scratch: directory for the intermediate copy of the text; default inside ``out``.
    """

    inputs: Sequence[Location | str]
    tokenizer: Path
    out: Path
    keys: DocumentKeys = field(default_factory=DocumentKeys)
    workers: int = 1
    validation_fraction: float = 0.0
    seed: int = 0
    shard_tokens: int = DEFAULT_SHARD_TOKENS
    skip_malformed: bool = False
    encoder: str = "auto"
    guard_share: float = DEFAULT_GUARD_SHARE
    scratch: Path | None = None

    def deciding_options(self) -> dict[str, object]:
        """What decides the output, but for the input's contents and the tokenizer's."""
        return {
            "keys": vars(self.keys),
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "shard_tokens": self.shard_tokens,
            "skip_malformed": self.skip_malformed,
            "encoder": self.encoder,
            "guard_share": self.guard_share,
        }

    def check(self) -> None:
        """Refuse values outside their range.

        Raises:
            DataError: naming option and value.
        """
        self.keys.check()
        if not 0.0 <= self.validation_fraction < 1.0:
            raise DataError(f"--validation-fraction {self.validation_fraction:g} is not in [0, 1)")
        if self.workers < 1:
            raise DataError(f"--workers {self.workers}: at least 1 is needed")
        if self.shard_tokens < 1:
            raise DataError(f"--shard-tokens {self.shard_tokens}: at least 1 is needed")
        if not 0.0 <= self.guard_share <= 1.0:
            raise DataError(f"--guard-share {self.guard_share:g} is not in [0, 1]")
        if self.encoder not in ENCODERS:
            raise DataError(f"--encoder {self.encoder!r} is not known\n  allowed: {', '.join(ENCODERS)}")
        if not -(2**63) <= self.seed < 2**63:
            raise DataError(f"--seed {self.seed} does not fit in 64 bits")
