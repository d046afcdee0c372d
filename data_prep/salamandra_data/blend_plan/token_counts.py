"""How many tokens a corpus has of each language, from a file: what a plan needs when there are no shards yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

from salamandra_data.blend_plan.factors import LanguageFactors, load_exact_yaml
from salamandra_data.blend_plan.plan import (
    BlendPlan,
    ShardRef,
    TokenizerRef,
    assemble_source,
    common_denominator,
)
from salamandra_data.errors import DataError

_UNITS = {"tokens": 1, "million_tokens": 10**6, "billion_tokens": 10**9}


@dataclass(frozen=True)
class TokenCounts:
    """Tokens by source, before any factor, and where the numbers are from.

    Attributes:
        tokens: by name of the source, which is the language where a language has one source.
        source: where the numbers are from.
        languages: of the sources whose name is not their language.
    """

    tokens: Mapping[str, int]
    source: str
    languages: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> TokenCounts:
        """Read ``source:`` (text) and one of ``tokens:``, ``million_tokens:`` and ``billion_tokens:`` (by language).

        A language may have several sources, counted by name; ``languages:`` says which language each of them is in.

        Raises:
            DataError: unreadable, an unknown or missing key, or a count that is not above 0.
        """
        path = Path(path)
        contents = load_exact_yaml(path, "file of token counts")
        units = [key for key in _UNITS if key in contents]
        unknown = sorted(str(key) for key in contents if key not in (*_UNITS, "source", "languages"))
        if unknown:
            raise DataError(
                f"{path}: unknown key {unknown[0]}\n  known: source, languages, {', '.join(_UNITS)}"
            )
        if len(units) != 1 or not isinstance(contents[units[0]], Mapping) or not contents[units[0]]:
            raise DataError(f"{path}: expected languages and numbers below one of {', '.join(_UNITS)}")
        if not isinstance(contents.get("source"), str):
            raise DataError(f"{path}: source is missing: say where the counts are from")
        unit = units[0]
        languages = contents.get("languages", {})
        if not isinstance(languages, Mapping) or not all(
            isinstance(name, str) for name in languages.values()
        ):
            raise DataError(f"{path}: languages must say the language of each source, such as `wiki: ca`")
        if uncounted := [str(name) for name in languages if name not in contents[unit]]:
            raise DataError(f"{path}: languages.{uncounted[0]} is not among the sources below {unit}")
        return cls(
            {
                language: _count(entry, f"{path}: {unit}.{language}", _UNITS[unit])
                for language, entry in contents[unit].items()
            },
            contents["source"],
            dict(languages),
        )


def plan_of_counts(counts: TokenCounts, factors: LanguageFactors) -> BlendPlan:
    """A plan to calculate with: each source is one shard of so many tokens, and no shard is there.

    Raises:
        DataError: every source has factor 0.
    """
    by_name = {name: factors.factor(counts.languages.get(name, name), name) for name in counts.tokens}
    blended = {name: tokens for name, tokens in counts.tokens.items() if by_name[name] > 0}
    if not blended:
        raise DataError("every language has factor 0: nothing is left to blend")
    denominator = common_denominator([by_name[name] for name in blended])
    sources = tuple(
        assemble_source(
            counts.languages.get(name, name),
            by_name[name],
            denominator,
            (ShardRef(Path(name), tokens, documents=0, utf8_bytes=0, idx_sha256="", bin_digest=""),),
            (),
            name=name,
        )
        for name, tokens in sorted(blended.items())
    )
    return BlendPlan(TokenizerRef(Path("none"), sha256="", vocab_size=0, eod_id=0), sources)


def _count(entry: object, name: str, unit: int) -> int:
    try:
        if isinstance(entry, bool):
            raise InvalidOperation
        count = int((Decimal(str(entry)) * unit).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise DataError(f"{name} = {entry!r} is not a number") from error
    if count < 1:
        raise DataError(f"{name} = {entry} is not above 0: leave out what the corpus does not have")
    return count
