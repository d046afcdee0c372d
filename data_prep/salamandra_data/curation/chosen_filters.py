"""Which filters a run has: ours, as its options ask for them, and those of the user's own that a YAML file names.

filters:
  - class: my_filters:ShortDocuments   # a module that Python can import, or my_filters.py:ShortDocuments
    options: {min_characters: 200}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from megatron_salamandra.foundation.yaml_files import read_yaml_mapping
from salamandra_data.curation import user_code
from salamandra_data.curation.contamination import ContaminationFilter
from salamandra_data.curation.curation_filter import CurationFilter
from salamandra_data.curation.harm_score import HarmFilter
from salamandra_data.curation.language_filter import LanguageFilter
from salamandra_data.curation.personal_data import PersonalDataMask
from salamandra_data.curation.quality_score import ScoreFilter
from salamandra_data.curation.settings import CurationSettings
from salamandra_data.errors import DataError

_BEFORE_USERS: tuple[type[CurationFilter], ...] = (
    LanguageFilter,
    ContaminationFilter,
    ScoreFilter,
    HarmFilter,
)
_AFTER_USERS: tuple[type[CurationFilter], ...] = (PersonalDataMask,)

_BEFORE_FILTERS = {"malformed": "lines that cannot be read", "empty": "no text"}
_AFTER_FILTERS = {
    "exact": "the text of an earlier document",
    "near": "nearly the text of an earlier document",
    "paragraphs": "too little left without repeated paragraphs",
}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEYS = ("class", "options")


@dataclass(frozen=True)
class UserFilter:
    """A filter of the user's own.

    Attributes:
        place: of its class, as :func:`user_code.load` takes it.
        options: as they stand in the file.
        origin: where that is, for messages.
    """

    place: str
    options: dict[str, Any] = field(hash=False)
    origin: str = field(compare=False)

    def load(self) -> type[CurationFilter]:
        """Its class.

        Raises:
            DataError: there is none, or it is no filter.
        """
        found = user_code.load(self.place, self.origin)
        if not (isinstance(found, type) and issubclass(found, CurationFilter)):
            raise DataError(
                f"{self.origin} {self.place}: is no class below salamandra_data.curation.CurationFilter"
            )
        name = getattr(found, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DataError(
                f"{self.origin} {self.place}: name = {name!r}: a lower-case letter, then such, digits, _ or -"
            )
        if not (isinstance(found.Options, type) and issubclass(found.Options, BaseModel)):
            raise DataError(
                f"{self.origin} {self.place}: Options is {found.Options!r}, and no pydantic model"
            )
        return found

    def build(self) -> CurationFilter:
        """A new instance.

        Raises:
            DataError: it cannot be made; says why.
        """
        step, options = self.load(), self.validated()
        try:
            return step(options)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.origin} {self.place}: {type(error).__name__}: {error}") from error

    def validated(self) -> Any:
        """Its options, as its model has them.

        Raises:
            DataError: the model does not take them; names each key, its value and the reason.
        """
        try:
            return self.load().Options.model_validate(self.options)
        except ValidationError as error:
            complaints = "\n  ".join(
                f"options.{'.'.join(map(str, detail['loc']))} = {detail['input']!r}: {detail['msg']}"
                for detail in error.errors(include_url=False)
            )
            raise DataError(f"{self.origin} {self.place}: {complaints}") from None

    def identity(self) -> list[Any]:
        """What decides its removals."""
        return [self.place, self.options, user_code.digest(self.place)]


def read_user_filters(path: Path) -> list[UserFilter]:
    """The filters that a file names; files of code are found from where it is.

    Raises:
        DataError: it cannot be read, or does not name filters.
    """
    content = read_yaml_mapping(path, error_class=DataError)
    entries = content.pop("filters", None)
    if content or not isinstance(entries, list) or not entries:
        raise DataError(
            f"{path}: must hold the key `filters` alone, with a list of filters, each with its `class`"
        )
    found = []
    for number, entry in enumerate(entries):
        origin = f"{path}: filters[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("class"), str) or set(entry) - set(_KEYS):
            raise DataError(
                f"{origin}: must have the keys `class` and, if it takes any, `options`; found {entry!r}"
            )
        options = entry.get("options") or {}
        if not isinstance(options, dict):
            raise DataError(f"{origin}: options = {options!r} are no keys and values")
        found.append(UserFilter(user_code.with_its_file(entry["class"], path.parent), options, origin))
    return found


@dataclass(frozen=True)
class ChosenFilters:
    """The filters of a run.

    Attributes:
        settings: of the run; a function of the user's own that they name has its file with it.
        of_user: in their order.
    """

    settings: CurationSettings
    of_user: Sequence[UserFilter] = ()

    def check(self) -> None:
        """Make all of them once, so that what cannot be used is found before anything is read.

        Raises:
            DataError: one cannot be made, or two have one name.
        """
        names = [*_BEFORE_FILTERS, *(step.name for step in self.classes()), *_AFTER_FILTERS]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(
                f"{self.settings.filters}: two filters are called {twice[0]!r}: give one another name"
            )
        self.build()

    def build(self) -> list[CurationFilter]:
        """New ones, in the order in which they look at a document."""
        return [
            *self._ours(_BEFORE_USERS),
            *(chosen.build() for chosen in self.of_user),
            *self._ours(_AFTER_USERS),
        ]

    def classes(self) -> list[type[CurationFilter]]:
        """All there are, ours also where they are not asked for."""
        return [*_BEFORE_USERS, *(chosen.load() for chosen in self.of_user), *_AFTER_USERS]

    def explanations(self) -> dict[str, str]:
        """Why documents are removed: reason and explanation, in the order in which it is looked for."""
        of_filters = {step.name: step.explanation for step in self.classes() if step.removes}
        return {**_BEFORE_FILTERS, **of_filters, **_AFTER_FILTERS}

    def settings_of(self, step: type[CurationFilter]) -> dict[str, Any]:
        """The options of a filter, as JSON."""
        for chosen in self.of_user:
            if chosen.load() is step:
                return dict(chosen.validated().model_dump(mode="json"))
        return self.settings.report()

    def _ours(self, steps: Sequence[type[CurationFilter]]) -> list[CurationFilter]:
        return [step(self.settings) for step in steps if step.is_wanted(self.settings)]
