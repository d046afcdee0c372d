"""Comparing tokenizers by what they make of each language's text."""

from __future__ import annotations

from salamandra_data.tokenizer_study.alpha_experiment import AlphaExperiment, run_alpha_experiment
from salamandra_data.tokenizer_study.encoders import StudiedTokenizer, named_path, open_tokenizer
from salamandra_data.tokenizer_study.fertility import (
    DEFAULT_REFERENCE,
    Fertility,
    count_words,
    measure_fertility,
)
from salamandra_data.tokenizer_study.report import alpha_plot, fertility_table, write_study
from salamandra_data.tokenizer_study.texts import StudyDocuments, read_language_text

__all__ = [
    "DEFAULT_REFERENCE",
    "AlphaExperiment",
    "Fertility",
    "StudiedTokenizer",
    "StudyDocuments",
    "alpha_plot",
    "count_words",
    "fertility_table",
    "measure_fertility",
    "named_path",
    "open_tokenizer",
    "read_language_text",
    "run_alpha_experiment",
    "write_study",
]
