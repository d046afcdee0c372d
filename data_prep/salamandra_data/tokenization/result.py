"""What a tokenization run made, and its table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.text_table import text_table
from salamandra_data.tokenization.backends import EncoderChoice


@dataclass
class GroupResult:
    """What was written for one language and split."""

    language: str
    split: str
    documents: int = 0
    tokens: int = 0
    utf8_bytes: int = 0
    shards: list[Path] = field(default_factory=list)


@dataclass
class TokenizeResult:
    """What a run wrote, passed over and found already done.

    Attributes:
        groups: what each language and split holds.
        empty_documents: by language.
        malformed_lines: lines passed over; ``skipped_report`` lists them.
        shards_already_done: shards of an earlier run that were kept.
        encoder: what encoded the others, and why no faster one did.
        renamed: the corpus language of each name in the input that means one, such as ``cat_Latn``.
        documents_checked: how many documents SentencePiece encoded as well, with the same ids.
    """

    groups: list[GroupResult]
    empty_documents: Counter[str]
    malformed_lines: int
    skipped_report: Path | None
    shards_already_done: int
    encoder: EncoderChoice
    documents_checked: int
    renamed: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """Documents, tokens, bytes and bytes per token of each language and split."""
        total = GroupResult("all", "")
        rows: list[tuple[str, ...]] = []
        for group in self.groups:
            rows.append(_row(group, len(group.shards)))
            total.documents += group.documents
            total.tokens += group.tokens
            total.utf8_bytes += group.utf8_bytes
        heading = ("language", "split", "documents", "tokens", "UTF-8 bytes", "bytes/token", "shards")
        return text_table(heading, rows, _row(total, sum(len(group.shards) for group in self.groups)))


def _row(group: GroupResult, shards: int) -> tuple[str, ...]:
    return (
        group.language,
        group.split,
        f"{group.documents:,}",
        f"{group.tokens:,}",
        f"{group.utf8_bytes:,}",
        f"{group.utf8_bytes / max(group.tokens, 1):.3f}",
        f"{shards:,}",
    )
