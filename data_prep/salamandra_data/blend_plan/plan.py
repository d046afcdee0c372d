"""The plan as it is in memory, and the promises it keeps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.storage import Location

FORMAT = "salamandra-blend-1"

TEXT = "text"
KINDS = (TEXT, "instructions", "images")
"""What a source can hold. Training on windows of tokens reads text."""


@dataclass(frozen=True)
class TokenizerRef:
    """The SentencePiece model that made every shard of a plan."""

    path: Path
    sha256: str
    vocab_size: int
    eod_id: int


@dataclass(frozen=True)
class ShardRef:
    """One shard of a source: ``path`` is the absolute prefix or the URL, without ``.bin`` or ``.idx``.

    ``idx_sha256`` is the checksum of the ``.idx`` file and ``bin_digest`` one checksum over the chunk
    checksums of the ``.bin``, both as the shard's manifest had them when the plan was made.
    """

    path: Location
    tokens: int
    documents: int
    utf8_bytes: int
    idx_sha256: str
    bin_digest: str


@dataclass(frozen=True)
class BlendSource:
    """One source of samples: its training shards, its validation shards, and how often it is drawn.

    ``name`` tells it from the other sources of a blend; it is the language where a language has one source.
    ``kind`` is what it holds, one of :data:`KINDS`. ``factor`` is how many times the source is walked per pass over the
    blend. ``tokens``, ``documents`` and ``utf8_bytes`` are sums over the training shards. ``weight`` is tokens times
    factor times the common denominator of all factors of the plan: an exact integer, proportional to the share.
    """

    language: str
    factor: Fraction
    tokens: int
    documents: int
    utf8_bytes: int
    weight: int
    shards: tuple[ShardRef, ...]
    validation_shards: tuple[ShardRef, ...] = ()
    name: str = ""
    kind: str = TEXT

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.language)

    @property
    def noun(self) -> str:
        """How messages call it before its name: a language where that is its name, else a source."""
        return "language" if self.name == self.language else "source"

    @property
    def validation_tokens(self) -> int:
        """Tokens of the validation shards."""
        return sum(shard.tokens for shard in self.validation_shards)


@dataclass(frozen=True)
class BlendPlan:
    """A frozen, checked blend. Make it with ``build_plan`` or ``BlendPlan.load``."""

    tokenizer: TokenizerRef
    sources: tuple[BlendSource, ...]
    format: str = FORMAT

    @property
    def total_weight(self) -> int:
        """Sum of the sources' weights: one pass over the blend, in tokens times the denominator."""
        return sum(source.weight for source in self.sources)

    @property
    def weight_denominator(self) -> int:
        """What the weights were multiplied by to be integers."""
        return common_denominator([source.factor for source in self.sources])

    def share(self, name: str) -> Fraction:
        """Exact share of the training tokens that the source of that name gets.

        Raises:
            DataError: the plan has no such source.
        """
        for source in self.sources:
            if source.name == name:
                return Fraction(source.weight, self.total_weight)
        raise DataError(f"the blend plan has no language or source {name!r}")

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides which tokens a run sees, and of no path."""
        digest = hashlib.sha256(f"{self.format} {self.tokenizer.sha256}\n".encode())
        for source in self.sources:
            if (source.name, source.kind) != (source.language, TEXT):
                digest.update(f"source {source.name} {source.kind}\n".encode())
            digest.update(f"{source.language} {source.factor} {source.weight}\n".encode())
            for kind, shards in (("train", source.shards), ("validation", source.validation_shards)):
                for shard in shards:
                    digest.update(f"{kind} {shard.tokens} {shard.idx_sha256} {shard.bin_digest}\n".encode())
        return digest.hexdigest()

    @classmethod
    def load(cls, path: Path | str) -> BlendPlan:
        """Read a plan and check it against the shards as they are now; the work is O(shards).

        Raises:
            DataError: a file is missing, was changed or belongs to another tokenizer; a language is empty;
                a shard is listed twice; a key is missing, unknown or wrong.
        """
        from salamandra_data.blend_plan.plan_file import load_plan

        return load_plan(Path(path))

    @classmethod
    def parse(cls, path: Path | str) -> BlendPlan:
        """Read a plan without opening its shards or tokenizer, which may have been moved or deleted.

        For comparing fingerprints; to train on a plan, ``load`` it.

        Raises:
            DataError: the file is missing; a key is missing, unknown or wrong; its numbers disagree.
        """
        from salamandra_data.blend_plan.plan_file import load_plan

        return load_plan(Path(path), open_data=False)

    def save(self, path: Path | str) -> None:
        """Write the plan with paths relative to it, so that a directory of data can be moved as a whole."""
        from salamandra_data.blend_plan.plan_file import save_plan

        save_plan(self, Path(path), absolute=False)

    def freeze(self, path: Path | str) -> None:
        """Write the plan with absolute paths: the record of what a run reads (``blend.lock.yaml``)."""
        from salamandra_data.blend_plan.plan_file import save_plan

        save_plan(self, Path(path), absolute=True)


def common_denominator(factors: list[Fraction]) -> int:
    """Least common multiple of the factors' denominators."""
    return lcm(*(factor.denominator for factor in factors))


def assemble_source(
    language: str,
    factor: Fraction,
    denominator: int,
    shards: tuple[ShardRef, ...],
    validation_shards: tuple[ShardRef, ...],
    *,
    name: str = "",
    kind: str = TEXT,
) -> BlendSource:
    """A source with its sums and its weight worked out.

    Args:
        name: that of the language if not given.
    Raises:
        DataError: the source has no training tokens.
    """
    tokens = sum(shard.tokens for shard in shards)
    if tokens == 0:
        noun = "source" if name and name != language else "language"
        raise DataError(
            f"{noun} {(name or language)!r} is empty: its {len(shards)} training shards hold no tokens\n"
            "  prepare text for it, or leave it out with factor 0"
        )
    return BlendSource(
        language=language,
        factor=factor,
        tokens=tokens,
        documents=sum(shard.documents for shard in shards),
        utf8_bytes=sum(shard.utf8_bytes for shard in shards),
        weight=int(tokens * factor * denominator),
        shards=shards,
        validation_shards=validation_shards,
        name=name,
        kind=kind,
    )
