"""Removing what a function of the user's own finds harmful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.curation import user_code
from salamandra_data.curation.curation_filter import CurationFilter
from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from datatrove.data import Document

_DEFAULT_MOST = 0.5


class HarmOptions(Options):
    """Which function, and which of its scores are kept."""

    harm: Annotated[
        str | None,
        Option(
            "a function (text, language) -> [0, 1] of your own that says how harmful a document is: of a module that "
            "this Python can import, or of a file, FILE.py:FUNCTION",
            metavar="MODULE:FUNCTION",
            flag="--harm-score",
        ),
    ] = None
    max_harm: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Option("most harmful that is kept, for --harm-score", metavar="S", default_text="0.5"),
    ] = None

    @model_validator(mode="after")
    def _limit_of_a_function(self) -> Self:
        if self.max_harm is not None and self.harm is None:
            raise ValueError("--max-harm needs --harm-score")
        return self


class HarmFilter(CurationFilter):
    """Keeps documents that the user's function finds harmless enough."""

    name: ClassVar[str] = "harm"
    explanation: ClassVar[str] = "high harm score"
    Options = HarmOptions

    def __init__(self, options: HarmOptions) -> None:
        super().__init__(options)
        assert options.harm is not None
        self._place = options.harm
        self._most = _DEFAULT_MOST if options.max_harm is None else options.max_harm
        function = user_code.load(self._place, "--harm-score")
        if not callable(function):
            raise DataError(
                f"--harm-score {self._place}: is {type(function).__name__}, not a function (text, language) -> [0, 1]"
            )
        self._function = function

    @classmethod
    def is_wanted(cls, options: HarmOptions) -> bool:
        """Whether there is a function."""
        return options.harm is not None

    def examine(self, document: Document) -> str | None:
        """Why a document is removed: its score."""
        score = self.score(document.id, document.text, document.metadata["language"])
        return None if score <= self._most else f"harm {score:.3f}"

    def score(self, document: str, text: str, language: str) -> float:
        """The score of a text.

        Args:
            document: names it in errors.
            text, language: of the document.
        Raises:
            DataError: the function fails, or gives no number in [0, 1].
        """
        try:
            given: Any = self._function(text, language)
        except Exception as error:
            raise DataError(
                f"--harm-score {self._place}: {type(error).__name__} on document {document}: {error}"
            ) from error
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = -1.0
        if not 0.0 <= value <= 1.0:  # nor is NaN
            raise DataError(
                f"--harm-score {self._place}: gives {given!r} for document {document}\n"
                "  it must return a number in [0, 1], 1 for the most harmful"
            )
        return value
