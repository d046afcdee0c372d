"""Plans on disk: YAML out, and YAML in with every shard checked."""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.credentials import holds_credentials
from megatron_salamandra.foundation.own_sums import (
    ANNOUNCEMENT,
    OWN_SUM,
    drop_own_sum,
    is_digest,
    own_sum_holds,
    with_own_sum,
)
from salamandra_data.blend_plan.factors import parse_factor
from salamandra_data.blend_plan.plan import (
    FORMAT,
    KINDS,
    TEXT,
    BlendPlan,
    BlendSource,
    ShardRef,
    TokenizerRef,
    assemble_source,
    common_denominator,
)
from salamandra_data.checksums import sha256_of_file
from salamandra_data.errors import DataError, DataWarning
from salamandra_data.shards import IndexedShard, ShardManifest, bin_path, manifest_path, same_tokens
from salamandra_data.storage import Location, RemotePath, as_location, is_url

_HEADING = "# Blend plan, written by `salamandra data blend`. Paths are relative to this file.\n"
_MOST_DEPTH = 16
_LOCK_HEADING = "# Blend plan as one run read it: absolute paths, counts and checksums.\n"


def save_plan(plan: BlendPlan, path: Path, *, absolute: bool) -> None:
    """Write ``plan`` to ``path`` in one step."""
    directory = path.absolute().parent

    def place(target: Location) -> str:
        if isinstance(target, RemotePath):
            if not holds_credentials(target.url):
                return target.url
            raise DataError(
                f"{target}: a blend plan would keep the credentials of this URL\n"
                "  leave them out of it and give them to fsspec, by the environment or ~/.config/fsspec"
            )
        return str(target) if absolute else os.path.relpath(target, directory)

    def shard_entry(shard: ShardRef) -> dict[str, Any]:
        return {**vars(shard), "path": place(shard.path)}

    contents = {
        "format": plan.format,
        "tokenizer": {**vars(plan.tokenizer), "path": place(plan.tokenizer.path)},
        "sources": [
            {
                **_identity(source),
                **{key: value for key, value in vars(source).items() if key not in _IDENTITY_KEYS},
                "factor": factor_text(source.factor),
                "shards": [shard_entry(shard) for shard in source.shards],
                "validation_shards": [shard_entry(shard) for shard in source.validation_shards],
            }
            for source in plan.sources
        ],
    }
    text = yaml.safe_dump(contents, sort_keys=False, allow_unicode=True, width=1000)
    atomic_write_bytes(path, with_own_sum(((_LOCK_HEADING if absolute else _HEADING) + text).encode()))


_IDENTITY_KEYS = ("name", "language", "kind")


def _identity(source: BlendSource) -> dict[str, str]:
    """What a source is; a name that is the language, and text, go without saying."""
    shown = {"name": source.name, "language": source.language, "kind": source.kind}
    usual = {"name": source.language, "kind": TEXT}
    return {key: value for key, value in shown.items() if usual.get(key) != value}


def factor_text(factor: Fraction) -> str:
    """A factor as a decimal string where it has a finite one (``0.5``), else as ``1/3``."""
    remainder = factor.denominator
    twos = fives = 0
    while remainder % 2 == 0:
        remainder, twos = remainder // 2, twos + 1
    while remainder % 5 == 0:
        remainder, fives = remainder // 5, fives + 1
    if remainder != 1:
        return str(factor)
    places = max(twos, fives)
    digits = f"{factor.numerator * 10**places // factor.denominator:0{places + 1}d}"
    return digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"


def load_plan(path: Path, *, open_data: bool = True) -> BlendPlan:
    """Read the plan at ``path``; see ``BlendPlan.load``, and ``BlendPlan.parse`` for ``open_data=False``."""
    raw, contents = _read(path)
    if isinstance(contents, dict):
        try:
            drop_own_sum(contents)
        except ValueError as error:
            raise DataError(f"{path}: {error}\n  make it again with `salamandra data blend`") from error
    root = _Section(path, "", contents)
    if root.text("format") != FORMAT:
        raise DataError(f"{path}: format = {root.text('format')!r}, expected {FORMAT!r}")
    tokenizer = _parse_tokenizer(path, root.section("tokenizer"))
    if open_data:
        _check_tokenizer(path, tokenizer)
    entries = root.sections("sources")
    if not entries:
        raise DataError(f"{path}: sources is empty: a blend needs at least one language")
    root.finish()
    factors = [_factor(entry) for entry in entries]
    denominator = common_denominator(factors)
    manifests: dict[Location, ShardManifest] = {}
    sources = tuple(
        _load_source(path, entry, factor, denominator, tokenizer, manifests if open_data else None)
        for entry, factor in zip(entries, factors, strict=True)
    )
    check_distinct(str(path), sources, manifests.items())
    _check_own_sum(path, raw)
    return BlendPlan(tokenizer=tokenizer, sources=sources)


def _read(path: Path) -> tuple[bytes, Any]:
    """The file, and what it says as YAML."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such blend plan; make it with `salamandra data blend`") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_foreign_yaml(path, yaml.parse(raw, Loader=loader))
        return raw, yaml.load(raw, Loader=loader)  # nosec B506
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    except ValueError as error:  # a number of thousands of digits, a date of a 13th month
        raise DataError(f"{path}: a value cannot be read: {error}") from error


def _refuse_foreign_yaml(path: Path, events: Iterable[Any]) -> None:
    """Refuse what plans never hold, before anything is made of it: aliases, which multiply, and deep nesting."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path}{_line(event)}: an alias (*) does not belong in a blend plan")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise DataError(f"{path}{_line(event)}: nested too deeply for a blend plan")


def _line(event: yaml.Event) -> str:
    return f":{event.start_mark.line + 1}" if event.start_mark is not None else ""


def _check_own_sum(path: Path, raw: bytes) -> None:
    match own_sum_holds(raw):
        case False:
            raise DataError(
                f"{path}: does not have its own checksum: it was damaged, cut short, or changed by hand\n"
                "  make it again with `salamandra data blend`, or restore it; if the change is meant, remove the "
                f"lines {ANNOUNCEMENT} and {OWN_SUM}"
            )
        case None:
            warnings.warn(
                f"{path}: has no checksum of itself, as earlier plans; damage in it may pass\n"
                "  make it again with `salamandra data blend` to have one",
                DataWarning,
                stacklevel=3,
            )


def check_distinct(
    name: str, sources: Iterable[BlendSource], manifests: Iterable[tuple[Location, ShardManifest]]
) -> None:
    """Refuse a source or a shard that occurs twice, the same tokens under two names included.

    Args:
        name: of the plan, for messages.
        sources: of the plan.
        manifests: of its shards; none for a plan that is read without them, which was checked when it was made.
    Raises:
        DataError: naming both places.
    """
    names: set[str] = set()
    places: dict[Location, Location] = {}
    source_of: dict[Location, str] = {}
    for source in sources:
        if source.name in names:
            raise DataError(
                f"{name}: {source.noun} {source.name!r} is listed twice; one source holds all its shards"
            )
        names.add(source.name)
        for shard in (*source.shards, *source.validation_shards):
            other = places.setdefault(shard.path.resolve(), shard.path)
            if shard.path in source_of or other != shard.path:
                raise _doubled(name, shard.path, source.name, other, source_of[other])
            source_of[shard.path] = source.name
    for one, other in same_tokens((path, manifest) for path, manifest in manifests if path in source_of):
        raise _doubled(name, one, source_of[one], other, source_of[other])


def _doubled(name: str, one: Location, source: str, other: Location, other_source: str) -> DataError:
    return DataError(
        f"{name}: {one} ({source}) holds the same tokens as {other} ({other_source})\n"
        "  list each shard once; to see a language more often, raise its factor"
    )


def _parse_tokenizer(path: Path, section: _Section) -> TokenizerRef:
    tokenizer = TokenizerRef(
        path=_resolve(path, section.text("path")),
        sha256=section.digest("sha256"),
        vocab_size=section.count("vocab_size"),
        eod_id=section.count("eod_id"),
    )
    section.finish()
    return tokenizer


def _check_tokenizer(path: Path, tokenizer: TokenizerRef) -> None:
    if not tokenizer.path.is_file():
        raise DataError(f"{path}: tokenizer.path: {tokenizer.path} is missing")
    found = sha256_of_file(tokenizer.path)
    if found != tokenizer.sha256:
        raise DataError(
            f"{path}: tokenizer.sha256 = {tokenizer.sha256}, but {tokenizer.path} has {found}\n"
            "  the tokenizer was replaced after the plan was made; restore it, or prepare shards and plan again"
        )


def _load_source(
    path: Path,
    entry: _Section,
    factor: Fraction,
    denominator: int,
    tokenizer: TokenizerRef,
    manifests: dict[Location, ShardManifest] | None,
) -> BlendSource:
    """A source of the file; its shards are opened, and their manifests added to ``manifests``, unless that is None."""
    language = entry.text("language")
    name = entry.text("name", language)
    kind = entry.text("kind", TEXT)
    if kind not in KINDS:
        raise DataError(f"{path}: {entry.name}.kind = {kind!r}, expected one of {', '.join(KINDS)}")

    def load_shards(key: str) -> tuple[ShardRef, ...]:
        entries = entry.sections(key)
        shards = tuple(_parse_shard(path, shard) for shard in entries)
        if manifests is not None:
            for section, shard in zip(entries, shards, strict=True):
                manifests[shard.path] = _check_shard(path, section.name, shard, language, tokenizer)
        return shards

    shards, validation = load_shards("shards"), load_shards("validation_shards")
    try:
        source = assemble_source(language, factor, denominator, shards, validation, name=name, kind=kind)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    for key in ("tokens", "documents", "utf8_bytes", "weight"):
        expected, found = getattr(source, key), entry.count(key)
        if expected != found:
            raise DataError(
                f"{path}: {entry.name}.{key} = {found:,}, but its shards and the factors give {expected:,}\n"
                "  make the plan again with `salamandra data blend`"
            )
    entry.finish()
    return source


def _parse_shard(path: Path, entry: _Section) -> ShardRef:
    shard = ShardRef(
        path=_location(path, entry.text("path")),
        tokens=entry.count("tokens"),
        documents=entry.count("documents"),
        utf8_bytes=entry.count("utf8_bytes"),
        idx_sha256=entry.digest("idx_sha256"),
        bin_digest=entry.digest("bin_digest"),
    )
    entry.finish()
    return shard


def _check_shard(
    path: Path, name: str, shard: ShardRef, language: str, tokenizer: TokenizerRef
) -> ShardManifest:
    try:
        found, manifest = read_shard_ref(shard.path, language, tokenizer.sha256)
    except DataError as error:
        raise DataError(f"{path}: {name}: {error}") from error
    if found != shard:
        key = next(key for key in vars(shard) if getattr(shard, key) != getattr(found, key))
        raise DataError(
            f"{path}: {name}.{key} = {getattr(shard, key)}, but {shard.path} has {getattr(found, key)}\n"
            "  the shard was prepared again after the plan was made; make the plan again with `salamandra data blend`"
        )
    return manifest


def read_shard_ref(prefix: Location, language: str, tokenizer_sha256: str) -> tuple[ShardRef, ShardManifest]:
    """Open a shard and its manifest, and check that they belong together and to this source.

    Raises:
        DataError: a file is missing or damaged, or language, tokenizer or counts are not as expected.
    """
    opened, manifest = IndexedShard.open(prefix), ShardManifest.load(prefix)
    if manifest.language != language:
        raise DataError(f"{manifest_path(prefix)}: language is {manifest.language!r}, expected {language!r}")
    if manifest.tokenizer.sha256 != tokenizer_sha256:
        raise DataError(
            f"{manifest_path(prefix)}: made by the tokenizer with SHA-256 {manifest.tokenizer.sha256}, "
            f"expected {tokenizer_sha256}\n  all shards of a blend must come from one tokenizer: tokenize them again"
        )
    for key, found in (("tokens", opened.tokens), ("documents", opened.documents)):
        if getattr(manifest, key) != found:
            raise DataError(
                f"{bin_path(prefix)}: {found:,} {key}, but its manifest says {getattr(manifest, key):,}\n"
                "  `salamandra data verify` tells what is damaged; prepare the shard again"
            )
    reference = ShardRef(
        path=prefix,
        tokens=manifest.tokens,
        documents=manifest.documents,
        utf8_bytes=manifest.utf8_bytes,
        idx_sha256=manifest.idx_sha256,
        bin_digest=manifest.bin_digest,
    )
    return reference, manifest


def _location(plan_path: Path, text: str) -> Location:
    return as_location(text) if is_url(text) else _resolve(plan_path, text)


def _resolve(plan_path: Path, text: str) -> Path:
    return Path(os.path.normpath(plan_path.absolute().parent / text))


def _factor(entry: _Section) -> Fraction:
    factor = parse_factor(entry.value("factor"), f"{entry.path}: {entry.name}.factor")
    if factor == 0:
        raise DataError(f"{entry.path}: {entry.name}.factor = 0: leave the source out of the plan instead")
    return factor


class _Section:
    """A mapping of the file, with its name for messages; every key must be asked for."""

    def __init__(self, path: Path, name: str, values: Any) -> None:
        self.path, self.name = path, name
        if not isinstance(values, Mapping):
            raise DataError(
                f"{path}: {name or 'the file'} is {type(values).__name__}, expected keys and values"
            )
        self._values = dict(values)
        self._asked: set[str] = set()

    def value(self, key: str) -> Any:
        self._asked.add(key)
        if key not in self._values:
            raise DataError(f"{self.path}: {self._full(key)} is missing")
        return self._values[key]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value(key) if default is None or key in self._values else default
        if not isinstance(value, str):
            raise DataError(f"{self.path}: {self._full(key)} = {reprlib.repr(value)} must be text")
        return value

    def digest(self, key: str) -> str:
        value = self.value(key)
        if not is_digest(value):
            raise DataError(
                f"{self.path}: {self._full(key)} = {reprlib.repr(value)} must be a SHA-256 in 64 hexadecimal digits"
            )
        return str(value)

    def count(self, key: str) -> int:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DataError(
                f"{self.path}: {self._full(key)} = {reprlib.repr(value)} must be a whole number, 0 or more"
            )
        return value

    def section(self, key: str) -> _Section:
        return _Section(self.path, self._full(key), self.value(key))

    def sections(self, key: str) -> list[_Section]:
        values = self.value(key)
        if not isinstance(values, list):
            raise DataError(f"{self.path}: {self._full(key)} must be a list")
        return [
            _Section(self.path, f"{self._full(key)}[{number}]", value) for number, value in enumerate(values)
        ]

    def finish(self) -> None:
        if unknown := self._values.keys() - self._asked:
            raise DataError(f"{self.path}: unknown key {self._full(min(map(str, unknown)))}")

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
