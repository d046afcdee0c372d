"""kitoken, which reads SentencePiece models itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

from salamandra_data.tokenization.backends.backend import INSTALL, BackendUnavailable
from salamandra_data.tokenization.encoder import TokenRows


class KitokenBackend:
    """One model in kitoken.

    Args:
        model: SentencePiece model file, which :func:`exactness.check_model` accepts.
    Raises:
        BackendUnavailable: the package is missing or refuses the model.
    """

    name = "kitoken"

    def __init__(self, model: Path) -> None:
        try:
            from kitoken import Kitoken
        except ImportError as error:
            raise BackendUnavailable(f"kitoken is not installed ({INSTALL})") from error
        self.version = version("kitoken")
        try:
            self._tokenizer = Kitoken.from_sentencepiece_file(str(model))
        except (ValueError, RuntimeError) as error:
            raise BackendUnavailable(f"kitoken cannot read the model: {error}") from error

    def encode(self, texts: Sequence[bytes]) -> TokenRows:
        """As :meth:`FastBackend.encode`."""
        rows = self._tokenizer.encode_all([text.decode() for text in texts])
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
        return TokenRows(ids, lengths)
