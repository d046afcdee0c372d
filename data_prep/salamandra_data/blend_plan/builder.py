"""From directories of shards and language factors to a blend plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from salamandra_data.blend_plan.factors import LanguageFactors
from salamandra_data.blend_plan.plan import (
    BlendPlan,
    BlendSource,
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


def build_plan(
    shards: Sequence[Location | str], factors: LanguageFactors, *, tokenizer: Path | None = None
) -> BlendPlan:
    """Gather all shards, one source per language, and weigh them exactly.

    Args:
        shards: directories, or prefixes of shards, local or URLs, in the order in which a source lists them.
        factors: factor of each language; 0 leaves a language out.
        tokenizer: the model file, if it is not beside the shards as ``tokenizer.model``.
    Raises:
        DataError: a shard is damaged or lacks a file, doubled, empty as a whole language, or of another tokenizer.
    """
    prefixes = find_shards(shards)
    check_complete(prefixes)
    manifests = {prefix: ShardManifest.load(prefix) for prefix in prefixes}
    identity = _common_tokenizer(manifests)
    by_language: dict[str, tuple[list[ShardRef], list[ShardRef]]] = {}
    for prefix, manifest in manifests.items():
        if factors.factor(manifest.language) == 0:
            continue
        train, validation = by_language.setdefault(manifest.language, ([], []))
        if manifest.split not in ("train", "validation"):
            raise DataError(
                f"{manifest_path(prefix)}: split = {manifest.split!r}, expected train or validation"
            )
        reference = read_shard_ref(prefix, manifest.language, identity.sha256)
        (train if manifest.split == "train" else validation).append(reference)
    if not by_language:
        raise DataError("every language found has factor 0: nothing is left to blend")
    denominator = common_denominator([factors.factor(language) for language in by_language])
    sources: list[BlendSource] = [
        assemble_source(language, factors.factor(language), denominator, tuple(train), tuple(validation))
        for language, (train, validation) in sorted(by_language.items())
    ]
    check_distinct("blend", tuple(sources))
    return BlendPlan(tokenizer=_locate_tokenizer(identity, prefixes, tokenizer), sources=tuple(sources))


def reweighted(plan: BlendPlan, factors: LanguageFactors) -> BlendPlan:
    """The same shards in other proportions; languages of factor 0 are left out.

    Raises:
        DataError: no language is left.
    """
    kept = [source for source in plan.sources if factors.factor(source.language) > 0]
    if not kept:
        raise DataError("every language has factor 0: nothing is left to blend")
    denominator = common_denominator([factors.factor(source.language) for source in kept])
    sources = tuple(
        assemble_source(
            source.language,
            factors.factor(source.language),
            denominator,
            source.shards,
            source.validation_shards,
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
