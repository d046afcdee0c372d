"""A blend plan over small shards with learnable token statistics, for training tests."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np

from salamandra_data.blend_plan import LanguageFactors, build_plan
from salamandra_data.shards import ShardWriter, TokenizerIdentity

VOCAB_SIZE = 256
EOD = 2
LANGUAGES = {"ca": 9000, "en": 20000, "ga": 3000}
FACTORS = {"ca": Fraction(2), "en": Fraction(1, 2)}


def _document(generator: np.random.Generator, offset: int, tokens: int) -> np.ndarray:
    """A noisy arithmetic walk: the next id mostly follows from the last one."""
    steps = generator.choice([3, 5, 7], size=tokens, p=[0.8, 0.1, 0.1])
    ids = 3 + (offset + np.cumsum(steps)) % (VOCAB_SIZE - 3)
    ids[-1] = EOD
    return ids


def write_blend(directory: Path, *, seed: int = 7) -> Path:
    """Write shards, a stand-in for a tokenizer and ``blend.yaml`` below ``directory``; returns the plan's path."""
    generator = np.random.default_rng(seed)
    tokenizer = directory / "tokenizer.model"
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(b"not a real model: these tests never decode\n")
    identity = TokenizerIdentity(hashlib.sha256(tokenizer.read_bytes()).hexdigest(), VOCAB_SIZE, EOD)
    for number, (language, tokens) in enumerate(LANGUAGES.items()):
        for split, share in (("train", 1.0), ("validation", 0.1)):
            prefix = directory / f"{language}-{split}-00000"
            with ShardWriter(prefix, language=language, split=split, tokenizer=identity) as writer:
                while writer.tokens < tokens * share:
                    ids = _document(generator, 40 * number, int(generator.integers(20, 200)))
                    writer.add_document(ids, utf8_bytes=3 * len(ids))
    plan = build_plan([directory], LanguageFactors(FACTORS), tokenizer=tokenizer)
    plan.save(directory / "blend.yaml")
    return directory / "blend.yaml"
