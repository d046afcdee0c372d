"""Comparing tokenizers by what they make of each language's text."""

from __future__ import annotations

from salamandra_data.tokenizer_study.alpha_experiment import AlphaExperiment, run_alpha_experiment
from salamandra_data.tokenizer_study.encoders import StudiedTokenizer, named_path, open_tokenizer
from salamandra_data.tokenizer_study.fertility import Fertility, measure_fertility
from salamandra_data.tokenizer_study.language_text import read_language_text
from salamandra_data.tokenizer_study.study_documents import StudyDocuments
from salamandra_data.tokenizer_study.words import count_words

__all__ = [
    "AlphaExperiment",
    "Fertility",
    "StudiedTokenizer",
    "StudyDocuments",
    "count_words",
    "measure_fertility",
    "named_path",
    "open_tokenizer",
    "read_language_text",
    "run_alpha_experiment",
]
