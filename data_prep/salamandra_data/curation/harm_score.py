"""A score for harmful content that a user brings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salamandra_data.errors import DataError


@dataclass(frozen=True)
class HarmScore:
    """A function of the user's own.

    Attributes:
        function: ``module:name`` of a callable ``(text: str, language: str) -> float`` in [0, 1], 1 the most harmful.
        most: documents above it are removed.
        directory: where the module is looked for after the installed ones; absolute, since tasks may start elsewhere.
    """

    function: str
    most: float = 0.5
    directory: Path | None = field(default=None, repr=False)

    def check(self) -> None:
        """Refuse values outside their range and what cannot be called.

        Raises:
            DataError: naming the option and its value.
        """
        if not 0.0 <= self.most <= 1.0:
            raise DataError(f"--max-harm {self.most:g} is not in [0, 1]")
        self._load()

    def scorer(self) -> Callable[[str, str, str], float]:
        """A function ``(document, text, language)`` of the score, where ``document`` names the text in errors.

        Raises:
            DataError: the user's function cannot be loaded; or, when called, it fails or gives no number in [0, 1].
        """
        function = self._load()

        def score(document: str, text: str, language: str) -> float:
            try:
                given = function(text, language)
            except Exception as error:
                raise DataError(
                    f"--harm-score {self.function}: {type(error).__name__} on document {document}: {error}"
                ) from error
            try:
                value = float(given)
            except (TypeError, ValueError):
                value = -1.0
            if not 0.0 <= value <= 1.0:  # nor is NaN
                raise DataError(
                    f"--harm-score {self.function}: gives {given!r} for document {document}\n"
                    "  it must return a number in [0, 1], 1 for the most harmful"
                )
            return value

        return score

    def _load(self) -> Callable[[str, str], Any]:
        module, _, name = self.function.partition(":")
        if self.directory is not None and str(self.directory) not in sys.path:
            sys.path.append(str(self.directory))
        try:
            found: Any = getattr(importlib.import_module(module), name)
        except Exception as error:
            where = f"{self.directory}, or that is installed" if self.directory else "this Python's path"
            raise DataError(
                f"--harm-score {self.function}: {type(error).__name__}: {error}\n"
                f"  give module:function of a module in {where}"
            ) from error
        if not callable(found):
            raise DataError(
                f"--harm-score {self.function}: is {type(found).__name__}, not a function (text, language) -> [0, 1]"
            )
        return found  # type: ignore[no-any-return]
