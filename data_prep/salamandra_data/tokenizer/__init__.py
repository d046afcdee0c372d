"""Training a SentencePiece tokenizer with the Salamandra recipe."""

from __future__ import annotations

from salamandra_data.tokenizer.language_sampling import LanguageSample, natural_sizes, plan_sampling
from salamandra_data.tokenizer.recipe import CONTROL_SYMBOLS, FIRST_BPE_ID, USER_DEFINED_SYMBOLS
from salamandra_data.tokenizer.training import TokenizerTraining, TrainedTokenizer, train_tokenizer

__all__ = [
    "CONTROL_SYMBOLS",
    "FIRST_BPE_ID",
    "USER_DEFINED_SYMBOLS",
    "LanguageSample",
    "TokenizerTraining",
    "TrainedTokenizer",
    "natural_sizes",
    "plan_sampling",
    "train_tokenizer",
]
