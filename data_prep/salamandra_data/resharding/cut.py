"""Where a row of documents is cut into shards: always between two documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from salamandra_data.errors import DataError
from salamandra_data.resharding.document_row import DocumentRow


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
