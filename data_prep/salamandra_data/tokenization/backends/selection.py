"""Which encoder a run uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from salamandra_data.errors import DataError
from salamandra_data.tokenization.backends.backend import BackendUnavailable, FastBackend
from salamandra_data.tokenization.backends.exactness import check_model
from salamandra_data.tokenization.backends.gigatoken_backend import GigatokenBackend
from salamandra_data.tokenization.backends.guarded_encoder import GuardedEncoder
from salamandra_data.tokenization.backends.kitoken_backend import KitokenBackend
from salamandra_data.tokenization.backends.model_file import read_model
from salamandra_data.tokenization.backends.self_check import first_difference
from salamandra_data.tokenization.encoder import SENTENCEPIECE_VERSION, Encoder

AUTO, SENTENCEPIECE = "auto", "sentencepiece"
_BACKENDS: dict[str, Callable[[Path, Path], FastBackend]] = {  # of model and cache, the fastest first
    "gigatoken": GigatokenBackend,
    "kitoken": lambda model, _: KitokenBackend(model),
}
ENCODERS = (AUTO, SENTENCEPIECE, *_BACKENDS)
"""What may be asked for."""


@dataclass(frozen=True)
class EncoderChoice:
    """The encoder of a run.

    Attributes:
        name: ``sentencepiece`` or a fast encoder.
        version: of its package.
        passed_over: why faster ones were not taken, a sentence each.
    """

    name: str
    version: str
    passed_over: tuple[str, ...] = ()


def choose_encoder(requested: str, reference: Encoder, model: Path, cache: Path) -> EncoderChoice:
    """The encoder asked for; for ``auto`` the fastest that is installed and agrees with SentencePiece when tried.

    Args:
        requested: one of :data:`ENCODERS`.
        reference: SentencePiece with the model.
        model: SentencePiece model file.
        cache: directory in which a fast encoder may keep the model in its own form.
    Raises:
        DataError: the fast encoder asked for is not installed, or cannot encode with this model exactly.
    """
    passed_over: list[str] = []
    for name in _BACKENDS if requested == AUTO else [requested] if requested in _BACKENDS else []:
        try:
            check_model(read_model(model))
            backend = load_backend(name, model, cache)
            _try(backend, reference, model)
        except BackendUnavailable as error:
            if requested == name:
                raise DataError(
                    f"--encoder {name}: {error}\n  or let --encoder sentencepiece do it: the same ids, slower"
                ) from error
            passed_over.append(str(error))
        else:
            return EncoderChoice(name, backend.version, tuple(passed_over))
    return EncoderChoice(SENTENCEPIECE, SENTENCEPIECE_VERSION, tuple(dict.fromkeys(passed_over)))


@lru_cache(maxsize=2)
def load_backend(name: str, model: Path, cache: Path) -> FastBackend:
    """A fast encoder, loaded once per process.

    Raises:
        BackendUnavailable: its package is missing, or refuses the model.
    """
    return _BACKENDS[name](model, cache)


def guarded_encoder(reference: Encoder, name: str, model: Path, cache: Path) -> GuardedEncoder:
    """The encoder of a choice made before, ready to count what it does.

    Args:
        reference: SentencePiece with the model.
        name: of an :class:`EncoderChoice`.
        model: SentencePiece model file.
        cache: as for :func:`choose_encoder`.
    """
    backend = None if name == SENTENCEPIECE else load_backend(name, model, cache)
    return GuardedEncoder(reference, backend)


def _try(backend: FastBackend, reference: Encoder, model: Path) -> None:
    text = first_difference(reference, backend, read_model(model))
    if text is not None:
        raise BackendUnavailable(
            f"{backend.name} {backend.version} does not agree with SentencePiece {SENTENCEPIECE_VERSION} "
            f"on {text[:60]!r}"
        )
