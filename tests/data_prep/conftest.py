"""A small multilingual corpus and the tokenizer trained on it, shared by the tests of data preparation."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from declaration import ARTICLE_1

from salamandra_data.tokenizer import TokenizerTraining, train_tokenizer


def make_documents(
    per_language: int, *, seed: int = 0, languages: Sequence[str] = tuple(ARTICLE_1)
) -> list[dict[str, str]]:
    """Documents of shuffled words: 1 to 40 lines each, with source and licence."""
    chance = random.Random(seed)
    documents = []
    for language in languages:
        words = ARTICLE_1[language].split()
        for number in range(per_language):
            lines = [" ".join(chance.sample(words, k=len(words) // 2)) for _ in range(chance.randint(1, 40))]
            documents.append(
                {
                    "text": f"{number}\t" + "\n".join(lines),
                    "language": language,
                    "source": f"declaration-{language}",
                    "licence": "free",
                }
            )
    chance.shuffle(documents)
    return documents


def write_json_lines(path: Path, documents: list[dict[str, str]]) -> Path:
    """One document per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
    return path


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 800 ids over six languages."""
    directory = tmp_path_factory.mktemp("tokenizer")
    corpus = write_json_lines(directory / "corpus.jsonl", make_documents(30))
    return train_tokenizer(TokenizerTraining([corpus], vocab_size=800), directory / "out").model


@pytest.fixture(scope="session")
def corpus_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of documents in six languages, about 0.6 MB."""
    directory = tmp_path_factory.mktemp("corpus")
    documents = make_documents(40, seed=1)
    return [write_json_lines(directory / f"part-{number}.jsonl", documents[number::3]) for number in range(3)]
