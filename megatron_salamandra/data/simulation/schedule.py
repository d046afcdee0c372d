"""The phases of a run in their order: which text, in which proportions, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from megatron_salamandra.config import RunConfig
from salamandra_data.blend_plan import (
    BlendPlan,
    LanguageFactors,
    TokenCounts,
    load_exact_yaml,
    parse_factor,
    pass_tokens,
    plan_of_counts,
    reweighted,
    temperature_factors,
)
from salamandra_data.errors import DataError

_TEXT_KEYS = ("token_counts", "plan")
_WEIGHT_KEYS = ("factors", "temperature")
_LENGTH_KEYS = ("passes", "tokens")
_PHASE_KEYS = ("name", *_TEXT_KEYS, *_WEIGHT_KEYS, *_LENGTH_KEYS, "new_text")


@dataclass(frozen=True)
class Phase:
    """One blend for some time.

    Attributes:
        tokens: length of the phase.
        sequence_length: of its samples, in tokens.
        factors: that the plan was made by; None if it has factors of its own.
        new_text: languages whose text is not that of the phase before, so that they start at 0 again.
    """

    name: str
    plan: BlendPlan
    factors: LanguageFactors | None
    tokens: int
    new_text: frozenset[str]
    sequence_length: int


@dataclass(frozen=True)
class Schedule:
    """A run: its phases, in order."""

    phases: tuple[Phase, ...]

    @classmethod
    def load(cls, path: Path | str) -> Schedule:
        """Read a schedule; files in it are relative to it.

        A phase has ``name``; ``token_counts`` or ``plan`` (a file); ``factors`` (a file) or ``temperature`` (a number),
        which a plan may do without; ``passes`` over the blend or ``tokens``; optionally ``new_text``.

        Raises:
            DataError: a file is missing or wrong; a key is unknown, missing or contradicts another.
        """
        path = Path(path)
        contents = load_exact_yaml(path, "schedule")
        _check_keys(f"{path}", contents, ("sequence_length", "phases"))
        length, entries = contents.get("sequence_length"), contents.get("phases")
        if not isinstance(length, int) or length < 1:
            raise DataError(
                f"{path}: sequence_length = {length!r} must be a whole number of tokens, 1 or more"
            )
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{path}: phases must be a list of at least one phase")
        phases = tuple(_phase(path, number, entry, length) for number, entry in enumerate(entries))
        if len({phase.name for phase in phases}) < len(phases):
            raise DataError(f"{path}: two phases have the same name")
        return cls(phases)

    @classmethod
    def of_config(cls, config: RunConfig) -> Schedule:
        """The phases of a run configuration; the text of each is its blend or, without one, what is expected.

        Raises:
            DataError: a file is missing or wrong, or a phase says nothing of its text.
        """
        return cls(tuple(_configured(config, number, name) for number, name in enumerate(config.phase_names)))


def _configured(config: RunConfig, number: int, name: str) -> Phase:
    part = config.in_phase(number)
    given = config.phases.get(name)
    where = f"phases.{name}" if given else "data"
    expected = given.expected if given else None
    factors: LanguageFactors | None = None
    if part.data.blend is not None:
        plan = BlendPlan.parse(part.data.blend)
    elif expected is not None:
        plan = plan_of_counts(TokenCounts.load(expected.token_counts), LanguageFactors({}))
        if expected.factors is not None:
            factors = LanguageFactors.load(expected.factors)
        else:
            temperature = parse_factor(expected.temperature, f"{where}.expected.temperature")
            factors = temperature_factors(
                {source.name: source.tokens for source in plan.sources}, temperature
            )
        plan = reweighted(plan, factors)
    else:
        keys = f"{where}.blend, or {where}.expected" if given else f"{where}.blend"
        raise DataError(f"{where} says nothing of its text\n  name a blend plan: {keys}")
    new_text = frozenset(given.new_text if given else ())
    if unknown := sorted(new_text - {source.name for source in plan.sources}):
        raise DataError(f"{where}.new_text names {', '.join(unknown)}, which the phase does not have")
    length = part.data.sequence_length
    return Phase(
        name, plan, factors, part.total_steps * part.training.global_batch_size * length, new_text, length
    )


def _phase(path: Path, number: int, entry: Any, sequence_length: int) -> Phase:
    where = f"{path}: phases[{number}]"
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} must have keys: {', '.join(_PHASE_KEYS)}")
    _check_keys(where, entry, _PHASE_KEYS)
    name = entry.get("name")
    if not isinstance(name, str):
        raise DataError(f"{where}.name is missing")
    plan, factors = _plan(path, where, entry)
    length = _one_of(where, entry, _LENGTH_KEYS)
    amount = parse_factor(entry[length], f"{where}.{length}")
    tokens = int(amount * pass_tokens(plan) if length == "passes" else amount)
    new_text = entry.get("new_text", [])
    sources = {source.name for source in plan.sources}
    if not isinstance(new_text, list) or (unknown := [name for name in new_text if name not in sources]):
        raise DataError(
            f"{where}.new_text must list languages of the phase; "
            f"not there: {unknown if isinstance(new_text, list) else new_text!r}"
        )
    return Phase(name, plan, factors, tokens, frozenset(new_text), sequence_length)


def _plan(path: Path, where: str, entry: Mapping[str, Any]) -> tuple[BlendPlan, LanguageFactors | None]:
    text = _one_of(where, entry, _TEXT_KEYS)
    file = path.parent / str(entry[text])
    if text == "plan" and not any(key in entry for key in _WEIGHT_KEYS):
        return BlendPlan.parse(file), None
    weight = _one_of(where, entry, _WEIGHT_KEYS)
    plan = (
        BlendPlan.parse(file)
        if text == "plan"
        else plan_of_counts(TokenCounts.load(file), LanguageFactors({}))
    )
    if weight == "factors":
        factors = LanguageFactors.load(path.parent / str(entry[weight]))
    else:
        temperature: Fraction = parse_factor(entry[weight], f"{where}.temperature")
        factors = temperature_factors({source.name: source.tokens for source in plan.sources}, temperature)
    return reweighted(plan, factors), factors


def _one_of(where: str, entry: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    found = [key for key in keys if key in entry]
    if len(found) != 1:
        raise DataError(
            f"{where} needs either {' or '.join(keys)}; it has {' and '.join(found) or 'neither'}"
        )
    return found[0]


def _check_keys(where: str, contents: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in contents:
        if key not in known:
            raise DataError(f"{where}: unknown key {key}\n  known: {', '.join(known)}")
