"""What the quick start is asked to do, and where it puts things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG = "quickstart"
"""The preset, ``configs/quickstart.yaml``."""


@dataclass(frozen=True)
class QuickstartJob:
    """Options of one quick start.

    Attributes:
        out: directory for everything.
        source: where the text comes from: ``pip`` or ``debian``.
        ranks: processes to train on; None takes 4 on a machine without GPUs, else as many GPUs as fit.
        vocab_size: ids of the tokenizer.
        validation_fraction: share of the documents that is held out, chosen by a hash of their text.
        fresh: delete what the stages of an earlier quick start made in ``out``; all else stays.
        overrides: ``section.key=value`` for the training configuration.
    """

    out: Path
    source: str = "pip"
    ranks: int | None = None
    vocab_size: int = 8192
    validation_fraction: float = 0.05
    fresh: bool = False
    overrides: tuple[str, ...] = ()

    @property
    def downloads(self) -> Path:
        return self.out / "downloads"

    @property
    def corpus(self) -> Path:
        return self.out / "corpus"

    @property
    def tokenizer(self) -> Path:
        return self.out / "tokenizer"

    @property
    def tokenizer_model(self) -> Path:
        return self.tokenizer / "tokenizer.model"

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    @property
    def blend(self) -> Path:
        return self.out / "blend.yaml"

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def hf(self) -> Path:
        return self.out / "hf"

    @property
    def report(self) -> Path:
        return self.out / "report.json"

    @property
    def plot(self) -> Path:
        return self.out / "bits-per-byte.svg"
