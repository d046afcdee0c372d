"""What a fast encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from salamandra_data.tokenization.encoder import TokenRows

INSTALL = "pip install 'megatron-salamandra[data]'"


class BackendUnavailable(Exception):
    """A fast encoder cannot be used here; the message says why."""


class FastBackend(Protocol):
    """A loaded model of a fast encoder. It is given only what :mod:`exactness` allows."""

    @property
    def name(self) -> str:
        """Of the package."""

    @property
    def version(self) -> str:
        """Of the package."""

    def encode(self, texts: Sequence[bytes]) -> TokenRows:
        """The ids of each UTF-8 text, without an end-of-document id."""
