"""Several shards end to end, seen as one row of documents, and where that row is cut into new shards."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from salamandra_data.errors import DataError
from salamandra_data.shards.indexed_shard import IndexedShard
from salamandra_data.shards.layout import manifest_path
from salamandra_data.shards.manifest import ShardManifest, TokenizerIdentity
from salamandra_data.shards.shard_files import check_complete
from salamandra_data.storage import Location


@dataclass(frozen=True)
class Piece:
    """Consecutive documents of one shard of the row."""

    shard: int
    first_document: int
    last_document: int  # exclusive


class DocumentRow:
    """Shards of one language, split and tokenizer, with where each of their documents begins.

    Finding a place is bisection in the mapped indexes; nothing is loaded.

    Raises:
        DataError: a shard is incomplete, damaged or without manifest, or they do not belong together.
    """

    def __init__(self, prefixes: Sequence[Location]) -> None:
        check_complete(prefixes)
        self.manifests = [ShardManifest.load(prefix) for prefix in prefixes]
        self.shards = [IndexedShard.open(prefix) for prefix in prefixes]
        for prefix, manifest, shard in zip(prefixes, self.manifests, self.shards, strict=True):
            _check_together(prefixes[0], self.manifests[0], prefix, manifest)
            if (manifest.tokens, manifest.documents) != (shard.tokens, shard.documents):
                raise DataError(
                    f"{manifest_path(prefix)}: {manifest.documents:,} documents and {manifest.tokens:,} tokens, but "
                    f"the shard has {shard.documents:,} and {shard.tokens:,}\n  `salamandra data verify` tells more"
                )
            shard.check_structure()
            shard.check_index(manifest.idx_sha256)
        self._document_ends = list(accumulate(shard.documents for shard in self.shards))
        self._token_ends = list(accumulate(shard.tokens for shard in self.shards))

    @property
    def documents(self) -> int:
        """Documents of all shards."""
        return self._document_ends[-1]

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return self._token_ends[-1]

    @property
    def tokenizer(self) -> TokenizerIdentity:
        """The tokenizer of all shards."""
        return self.manifests[0].tokenizer

    def token_at(self, document: int) -> int:
        """Tokens before ``document``; all of them for the number of documents."""
        if document == self.documents:
            return self.tokens
        shard = bisect_right(self._document_ends, document)
        local = document - (self._document_ends[shard] - self.shards[shard].documents)
        return self._token_ends[shard] - self.shards[shard].tokens + self.shards[shard].document_start(local)

    def document_from(self, token: int) -> int:
        """The first document that begins at ``token`` or later; the number of documents if there is none."""
        shard = bisect_left(self._token_ends, token)
        if shard == len(self.shards):
            return self.documents
        local_token = token - (self._token_ends[shard] - self.shards[shard].tokens)
        local = self.shards[shard].document_from(local_token)
        return self._document_ends[shard] - self.shards[shard].documents + local

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """Documents ``first`` to ``last`` (exclusive), shard by shard."""
        for number, (shard, end) in enumerate(zip(self.shards, self._document_ends, strict=True)):
            begin = end - shard.documents
            low, high = max(first, begin), min(last, end)
            if low < high:
                yield Piece(number, low - begin, high - begin)


@dataclass(frozen=True)
class Whole:
    """One shard of everything."""

    def bounds(self, row: DocumentRow) -> list[int]:
        """Document numbers at which shards begin and end, rising from 0 to the number of documents."""
        return [0, row.documents]


@dataclass(frozen=True)
class IntoParts:
    """``parts`` shards whose tokens differ by no more than the length of a document, where documents allow."""

    parts: int

    def bounds(self, row: DocumentRow) -> list[int]:
        """As :meth:`Whole.bounds`.

        Raises:
            DataError: there are fewer documents than parts.
        """
        if row.documents < self.parts:
            raise DataError(
                f"{row.shards[0].prefix}: {row.documents:,} documents cannot fill {self.parts:,} shards\n"
                f"  ask for at most {row.documents:,}"
            )
        bounds = [0]
        for part in range(1, self.parts):
            wanted = row.document_from(row.tokens * part // self.parts)
            still_needed = self.parts - part  # one document for each part to come
            bounds.append(min(max(wanted, bounds[-1] + 1), row.documents - still_needed))
        return [*bounds, row.documents]


@dataclass(frozen=True)
class IntoTokens:
    """Shards of at most ``tokens`` tokens each; a longer document is a shard of its own."""

    tokens: int

    def bounds(self, row: DocumentRow) -> list[int]:
        """As :meth:`Whole.bounds`."""
        bounds = [0]
        while bounds[-1] < row.documents:
            limit = row.token_at(bounds[-1]) + self.tokens
            # The document that begins behind the limit ends the shard before the one that crosses the limit.
            last = row.documents if limit >= row.tokens else row.document_from(limit + 1) - 1
            bounds.append(max(last, bounds[-1] + 1))
        return bounds


Cut: TypeAlias = Whole | IntoParts | IntoTokens


def _check_together(
    first_prefix: Location, first: ShardManifest, prefix: Location, manifest: ShardManifest
) -> None:
    for key in ("language", "split", "tokenizer"):
        one, other = getattr(first, key), getattr(manifest, key)
        if one != other:
            raise DataError(
                f"{manifest_path(prefix)}: {key} is {other!r}, but {manifest_path(first_prefix)} has {one!r}\n"
                "  shards that become one must be of one language, one split and one tokenizer; name only those, "
                "for example shards/ca-train-*.json"
            )
