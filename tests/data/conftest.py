"""Blend plans for the stream's tests: on paper (no files), or with real shards on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from salamandra_data.blend_plan import BlendPlan, BlendSource, ShardRef, TokenizerRef
from salamandra_data.shards import ShardWriter, TokenizerIdentity

EOD = 2
_TOKENIZER_SHA256 = "0" * 64

PaperPlan = Callable[[Mapping[str, tuple[int, str | int]]], BlendPlan]


def plan_of(sources: Sequence[BlendSource]) -> BlendPlan:
    return BlendPlan(
        tokenizer=TokenizerRef(Path("/nowhere/tokenizer.model"), _TOKENIZER_SHA256, 256_000, EOD),
        sources=tuple(sources),
    )


def source_of(
    language: str,
    shards: Sequence[ShardRef],
    factor: Fraction,
    denominator: int,
    validation_shards: Sequence[ShardRef] = (),
) -> BlendSource:
    tokens = sum(shard.tokens for shard in shards)
    return BlendSource(
        language=language,
        factor=factor,
        tokens=tokens,
        documents=sum(shard.documents for shard in shards),
        utf8_bytes=sum(shard.utf8_bytes for shard in shards),
        weight=int(tokens * factor * denominator),
        shards=tuple(shards),
        validation_shards=tuple(validation_shards),
    )


@pytest.fixture(scope="session")
def paper_plan() -> PaperPlan:
    """language -> (tokens, factor), to a plan whose shards do not exist: enough for everything but reading."""

    def make(languages: Mapping[str, tuple[int, str | int]]) -> BlendPlan:
        factors = {language: Fraction(factor) for language, (_, factor) in languages.items()}
        denominator = lcm(*(factor.denominator for factor in factors.values()))
        return plan_of(
            [
                source_of(
                    language,
                    [ShardRef(Path(f"/nowhere/{language}"), tokens, 1, tokens * 4, language, language)],
                    factors[language],
                    denominator,
                )
                for language, (tokens, _) in languages.items()
            ]
        )

    return make


class ShardPlace:
    """Writes shards of random documents below one directory and remembers their tokens.

    ``documents`` are the tokens of each document, in order, by prefix.
    """

    def __init__(self, directory: Path, vocab_size: int) -> None:
        self.directory = directory
        self.documents: dict[Path, list[NDArray[np.int64]]] = {}
        self._tokenizer = TokenizerIdentity(_TOKENIZER_SHA256, vocab_size, EOD)
        self._generator = np.random.default_rng(7)

    def write(self, language: str, document_tokens: Sequence[int], split: str = "train") -> ShardRef:
        """Write one shard whose documents have the given numbers of tokens, EOD included."""
        prefix = self.directory / f"{language}-{split}-{len(self.documents):05d}"
        documents = []
        with ShardWriter(prefix, language=language, split=split, tokenizer=self._tokenizer) as writer:
            for tokens in document_tokens:
                ids = self._generator.integers(3, self._tokenizer.vocab_size, tokens, dtype=np.int64)
                ids[-1] = EOD
                writer.add_document(ids, utf8_bytes=3 * tokens)
                documents.append(ids)
        assert writer.manifest is not None
        self.documents[prefix] = documents
        return ShardRef(
            prefix,
            writer.tokens,
            writer.documents,
            writer.utf8_bytes,
            writer.manifest.idx_sha256,
            writer.manifest.bin_digest,
        )

    def source_tokens(self, shards: Sequence[ShardRef]) -> NDArray[np.int64]:
        """All tokens of the shards end to end."""
        return np.concatenate([ids for shard in shards for ids in self.documents[shard.path]])

    def plan(
        self, languages: Mapping[str, Sequence[Sequence[int]]], factors: Mapping[str, str | int] | None = None
    ) -> BlendPlan:
        """language -> document lengths of each of its shards, to a plan with these shards on disk."""
        exact = {language: Fraction((factors or {}).get(language, 1)) for language in languages}
        denominator = lcm(*(factor.denominator for factor in exact.values()))
        return plan_of(
            [
                source_of(
                    language,
                    [self.write(language, lengths) for lengths in shards],
                    exact[language],
                    denominator,
                )
                for language, shards in languages.items()
            ]
        )


@pytest.fixture(params=[32_000, 256_000], ids=["uint16", "int32"])
def shard_place(request: pytest.FixtureRequest, tmp_path: Path) -> ShardPlace:
    """Shards in both widths of ids."""
    return ShardPlace(tmp_path / "shards", request.param)


@pytest.fixture
def wide_shard_place(tmp_path: Path) -> ShardPlace:
    """Shards of the real vocabulary only, where the width does not matter."""
    return ShardPlace(tmp_path / "shards", 256_000)
