"""Options that say what the natural shares of the languages are, for the commands that train tokenizers."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_natural_share_options(parser: argparse.ArgumentParser) -> None:
    """What alpha 1 is proportional to."""
    parser.add_argument(
        "--language-sizes",
        type=Path,
        metavar="FILE",
        help="token counts of the corpus that the tokenizer is for, of which the input is a sample, such as "
        "configs/data/salamandra-corpus-a.yaml; natural shares are of these (default: bytes of the input)",
    )
    parser.add_argument(
        "--factors",
        type=Path,
        metavar="FILE",
        help="language factors, such as configs/data/salamandra-pretraining.yaml, that multiply --language-sizes: "
        "natural shares are then those of the blend that is trained on",
    )
