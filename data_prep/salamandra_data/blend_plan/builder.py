"""From directories of shards and language factors to a blend plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.blend_plan.plan import (
    KINDS,
    TEXT,
    BlendPlan,
    ShardRef,
    TokenizerRef,
    assemble_source,
    common_denominator,
)
from salamandra_data.blend_plan.plan_file import check_distinct, read_shard_ref
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError
from salamandra_data.shards import (
    TOKENIZER_FILE_NAME,
    ShardManifest,
    TokenizerIdentity,
    check_complete,
    find_shards,
    manifest_path,
)
from salamandra_data.storage import Location

_NAMED_SOURCE = re.compile(r"(?P<name>(?:[\w./-]|\{language\})+)(?::(?P<kind>\w*))?=(?P<place>.+)", re.DOTALL)


@dataclass(frozen=True)
class NamedSource:
    """Shards that are a source of their own, beside others of the same language.

    Attributes:
        name: of the source; ``{language}`` in it stands for the language of a shard, so that shards of several
            languages are a source each.
        shards: directories, or prefixes of shards, local or URLs.
        kind: what they hold, one of :data:`KINDS`.
    """

    name: str
    shards: tuple[Location | str, ...]
    kind: str = TEXT

    @classmethod
    def parse(cls, text: str) -> NamedSource:
        """The source that ``NAME=DIR`` or ``NAME:KIND=DIR`` describes.

        Raises:
            DataError: it is written otherwise, or the kind is not known.
        """
        match = _NAMED_SOURCE.fullmatch(text)
        if match is None:
            raise DataError(
                f"source {text!r}: expected NAME=DIR or NAME:KIND=DIR, such as wiki-{{language}}=shards/wiki\n"
                "  a name has letters, digits and . _ - / and may hold {language}"
            )
        kind = match["kind"] or TEXT
        if kind not in KINDS:
            raise DataError(
                f"source {text!r}: kind {kind!r} is not known\n  expected one of {', '.join(KINDS)}"
            )
        return cls(match["name"], (match["place"],), kind)


def build_plan(
    shards: Sequence[Location | str],
    factors: LanguageFactors,
    *,
    sources: Sequence[NamedSource] = (),
    tokenizer: Path | None = None,
) -> BlendPlan:
    """Gather all shards and weigh them exactly; those of no named source are one source per language.

    Args:
        shards: directories, or prefixes of shards, local or URLs, in the order in which a source lists them.
        factors: factor of each language or source; 0 leaves it out.
        sources: shards that are sources of their own.
        tokenizer: the model file, if it is not beside the shards as ``tokenizer.model``.
    Raises:
        DataError: a shard is damaged or lacks a file, doubled, empty as a whole source, or of another tokenizer; a
            named source has shards of several languages.
    """
    places = [_Place(prefix, "{language}", TEXT) for prefix in find_shards(shards)] if shards else []
    for given in sources:
        places += [_Place(prefix, given.name, given.kind) for prefix in find_shards(given.shards)]
    check_complete([place.prefix for place in places])
    manifests = {place.prefix: ShardManifest.load(place.prefix) for place in places}
    identity = _common_tokenizer(manifests)
    by_name: dict[str, _Gathered] = {}
    for place in places:
        prefix, manifest = place.prefix, manifests[place.prefix]
        name = place.name.replace("{language}", manifest.language)
        if factors.factor(manifest.language, name) == 0:
            continue
        if manifest.split not in ("train", "validation"):
            raise DataError(
                f"{manifest_path(prefix)}: split = {manifest.split!r}, expected train or validation"
            )
        gathered = by_name.setdefault(name, _Gathered(manifest.language, place.kind))
        if (gathered.language, gathered.kind) != (manifest.language, place.kind):
            raise DataError(
                f"{manifest_path(prefix)}: {place.kind} in {manifest.language}, but source {name} has {gathered.kind} "
                f"in {gathered.language}\n  a source is of one language and one kind: name it, for example, "
                f"{name}-{{language}}"
            )
        reference, _ = read_shard_ref(prefix, manifest.language, identity.sha256)
        (gathered.train if manifest.split == "train" else gathered.validation).append(reference)
    if not by_name:
        raise DataError("every language found has factor 0: nothing is left to blend")
    by_factor = {name: factors.factor(gathered.language, name) for name, gathered in by_name.items()}
    denominator = common_denominator(list(by_factor.values()))
    made = tuple(
        assemble_source(
            gathered.language,
            by_factor[name],
            denominator,
            tuple(gathered.train),
            tuple(gathered.validation),
            name=name,
            kind=gathered.kind,
        )
        for name, gathered in sorted(by_name.items())
    )
    check_distinct("blend", made, manifests.items())
    prefixes = [place.prefix for place in places]
    return BlendPlan(tokenizer=_locate_tokenizer(identity, prefixes, tokenizer), sources=made)


@dataclass(frozen=True)
class _Place:
    """A shard and the source it was given for."""

    prefix: Location
    name: str
    kind: str


@dataclass
class _Gathered:
    """The shards of a source, as they are found."""

    language: str
    kind: str
    train: list[ShardRef] = field(default_factory=list)
    validation: list[ShardRef] = field(default_factory=list)


def reweighted(plan: BlendPlan, factors: LanguageFactors) -> BlendPlan:
    """The same shards in other proportions; sources of factor 0 are left out.

    Raises:
        DataError: no source is left.
    """
    by_name = {source.name: factors.factor(source.language, source.name) for source in plan.sources}
    kept = [source for source in plan.sources if by_name[source.name] > 0]
    if not kept:
        raise DataError("every language has factor 0: nothing is left to blend")
    denominator = common_denominator([by_name[source.name] for source in kept])
    sources = tuple(
        assemble_source(
            source.language,
            by_name[source.name],
            denominator,
            source.shards,
            source.validation_shards,
            name=source.name,
            kind=source.kind,
        )
        for source in kept
    )
    return replace(plan, sources=sources)


def _common_tokenizer(manifests: dict[Location, ShardManifest]) -> TokenizerIdentity:
    first_prefix, first = next(iter(manifests.items()))
    for prefix, manifest in manifests.items():
        if manifest.tokenizer != first.tokenizer:
            raise DataError(
                f"{manifest_path(prefix)}: tokenizer {manifest.tokenizer}, but {manifest_path(first_prefix)} "
                f"has {first.tokenizer}\n  all shards of a blend must come from one tokenizer: tokenize them again"
            )
    return first.tokenizer


def _locate_tokenizer(
    identity: TokenizerIdentity, prefixes: list[Location], given: Path | None
) -> TokenizerRef:
    candidates = (
        [given.absolute()]
        if given
        else [
            directory / TOKENIZER_FILE_NAME
            for directory in dict.fromkeys(prefix.parent for prefix in prefixes if isinstance(prefix, Path))
        ]
    )
    for candidate in candidates:
        if candidate.is_file() and sha256_of_file(candidate) == identity.sha256:
            return TokenizerRef(candidate, identity.sha256, identity.vocab_size, identity.eod_id)
    looked = ", ".join(str(candidate) for candidate in candidates) or "no local directory of shards"
    raise DataError(
        f"the tokenizer of the shards (SHA-256 {identity.sha256}) was not found; looked at {looked}\n"
        "  name its model file with --tokenizer"
    )
