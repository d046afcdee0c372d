"""Language factors: how many times each language is walked per pass over the blend."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from salamandra_data.errors import DataError
from salamandra_data.languages import corpus_language

_NEST_KEYS = ("languages", "factors")
_DEFAULT_KEYS = ("default", "default_factor")
_ENTRY_KEYS = ("factor", "corpus_a", "corpus_b")
"""Of an entry that is a mapping. The published shares ``corpus_a`` and ``corpus_b`` are for comparison only."""

_LONGEST_NUMBER, _MOST_DIGITS = 60, 18  # characters of a factor as written, and its powers of ten

_MISSPELT = 0.8  # similarity from which a language of a file without nesting is taken for a misspelt key


@dataclass(frozen=True)
class LanguageFactors:
    """Factors by language or by source, and the one of any that is not named.

    A source is called by its name or, where that is not named, by its language. A factor of 0 leaves it out of the
    blend.
    """

    by_language: Mapping[str, Fraction]
    default: Fraction = Fraction(1)

    def factor(self, language: str, source: str | None = None) -> Fraction:
        """The factor of one language, under its own name or another name of the same language.

        Args:
            source: name of a source of that language, which may have a factor of its own.
        """
        entry = self.entry(language, source)
        return self.default if entry is None else self.by_language[entry]

    def entry(self, language: str, source: str | None = None) -> str | None:
        """The name in the file for a source: its own, its language's, or one that means the same language.

        ``ca`` and ``cat_Latn`` mean the same.
        """
        for name in (source, language):
            if name is not None and name in self.by_language:
                return name
        meant = corpus_language(language)
        if meant is None:
            return None
        return next((name for name in self.by_language if corpus_language(name) == meant), None)

    @classmethod
    def load(cls, path: Path | str) -> LanguageFactors:
        """Read a factors file.

        The file maps languages to numbers (``ca: 2``) or to mappings with a ``factor`` key, at the top or
        below ``languages:`` or ``factors:``; ``default:`` or ``default_factor:`` is for all others. Numbers are
        taken as written: ``0.1`` is exactly one tenth, and ``1/3`` is allowed.

        Raises:
            DataError: unreadable, not a mapping, a key that is unknown or written twice, or a factor that is
                negative or not a number.
        """
        path = Path(path)
        return cls._from_mapping(path, load_exact_yaml(path, "factors file"))

    @classmethod
    def _from_mapping(cls, path: Path, contents: Mapping[Any, Any]) -> LanguageFactors:
        default_key = _only_one(path, contents, _DEFAULT_KEYS)
        nest = _only_one(path, contents, _NEST_KEYS)
        default = (
            Fraction(1)
            if default_key is None
            else parse_factor(contents[default_key], f"{path}: {default_key}")
        )
        reserved = (*_NEST_KEYS, *_DEFAULT_KEYS)
        for key in contents:
            if key not in reserved and (
                nest or difflib.get_close_matches(str(key), reserved, cutoff=_MISSPELT)
            ):
                raise _unknown_key(f"{path}: {key}", str(key), reserved)
        entries = contents[nest] if nest else contents
        if not isinstance(entries, Mapping):
            raise DataError(f"{path}: {nest} must map languages to numbers")
        by_language: dict[str, Fraction] = {}
        for language, entry in entries.items():
            if nest is None and language in _DEFAULT_KEYS:
                continue
            name = f"{path}: {nest}.{language}" if nest else f"{path}: {language}"
            if not isinstance(language, str):
                raise DataError(
                    f"{name}: a language is text; YAML reads {language!r} here, so put it in quotes"
                )
            if isinstance(entry, Mapping):
                for key in entry:
                    if key not in _ENTRY_KEYS:
                        raise _unknown_key(f"{name}.{key}", str(key), _ENTRY_KEYS)
                if "factor" not in entry:
                    raise DataError(f"{name}: has no key `factor`")
                entry = entry["factor"]
            by_language[language] = parse_factor(entry, name)
        return cls(by_language, default)


def load_exact_yaml(path: Path, kind: str) -> Mapping[Any, Any]:
    """A mapping from a file in which ``no`` is Norwegian, decimals stay text, and no key is written twice.

    Raises:
        DataError: the ``kind`` of file is missing, unreadable or not a mapping.
    """
    try:
        contents = yaml.load(path.read_bytes(), Loader=_ExactLoader)  # nosec B506 # a SafeLoader
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such {kind}") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a {kind}: {error}") from error
    if not isinstance(contents, Mapping):
        raise DataError(f"{path}: a {kind} holds keys and values, for example `ca: 2`")
    return contents


def _only_one(path: Path, contents: Mapping[Any, Any], names: Sequence[str]) -> str | None:
    found = [name for name in names if name in contents]
    if len(found) > 1:
        raise DataError(f"{path}: has both {' and '.join(found)}, which mean the same: keep one")
    return found[0] if found else None


def _unknown_key(name: str, key: str, known: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return DataError(f"{name}: unknown key\n  {hint}")


def parse_factor(value: Any, name: str) -> Fraction:
    """An exact factor from a number or a text such as ``0.5`` or ``1/3``.

    Raises:
        DataError: not a number, not finite, or negative; ``name`` says where it was read.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal, Fraction)):
            raise ValueError
        text = str(value)
        if len(text) > _LONGEST_NUMBER or ("/" not in text and abs(Decimal(text).adjusted()) > _MOST_DIGITS):
            raise DataError(
                f"{name} = {text[:_LONGEST_NUMBER]}: is written with more than {_LONGEST_NUMBER} characters, or is not "
                f"between 1e-{_MOST_DIGITS} and 1e{_MOST_DIGITS}"
            )
        factor = Fraction(text)
    except DataError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise DataError(f"{name} = {_shown(value)} is not a number such as 2, 0.5 or 1/3") from error
    if factor < 0:
        raise DataError(f"{name} = {value} is negative; a factor is how many times a language is walked")
    return factor


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_LONGEST_NUMBER]
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"


class _ExactLoader(yaml.SafeLoader):
    """YAML in which ``no`` is Norwegian, a decimal keeps its digits, and no key is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is written twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_AMBIGUOUS_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
_ExactLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _AMBIGUOUS_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
