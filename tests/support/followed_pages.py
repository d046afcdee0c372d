"""A directory as somebody has it who follows the pages: text, tokenizer, shards, plan, a run and its export."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from declaration_in_all import ARTICLE_1_IN_ALL
from pages import REPOSITORY

LANGUAGES = ("ca", "en", "es", "eu")
QUESTION = [f"word{number}" for number in range(13)]
CONFIGURATION = """\
extends: tiny
model: {layers: 2, hidden_size: 64, ffn_hidden_size: 96, attention_heads: 4, query_groups: 2, vocab_size: 512,
        sequence_length: 32}
training: {micro_batch_size: 1, global_batch_size: 4, steps: 2}
optimizer: {warmup_steps: 1}
validation: {every_steps: null, at_end: false}
checkpoint: {every_steps: null}
data: {blend: blend.yaml}
platform: host
"""


def write_text(directory: Path, documents: int, seed: int, languages: Sequence[str] = LANGUAGES) -> None:
    """JSON lines of each language: the words of one article, drawn anew."""
    directory.mkdir(parents=True)
    generator = random.Random(seed)
    for language in languages:
        words = ARTICLE_1_IN_ALL[language].lower().replace(".", "").replace(",", "").split()
        with (directory / f"{language}.jsonl").open("w", encoding="utf-8") as stream:
            for _ in range(documents):
                sentences = (
                    " ".join(generator.choices(words, k=12)).capitalize() + f" {generator.randint(1, 10**6)}."
                    for _ in range(6)
                )
                record = {"text": " ".join(sentences), "language": language}
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def run_shell(command: str, directory: Path) -> str:
    """Run a line of a page as a person would, with our programs first on the path."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": programs, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\nexit code {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout


def prepare(directory: Path) -> Path:
    """Fill ``directory``; takes some 20 seconds on two cores."""
    for name in ("configs", "launch", "benchmarks", "docs"):
        (directory / name).symlink_to(REPOSITORY / name)
    for name, seed in (("corpus", 1), ("curated/documents", 3), ("heldout", 4)):
        write_text(directory / name, 60, seed)
    write_text(directory / "raw", 60, 2, ("ca", "en"))
    write_text(directory / "wiki", 60, 5, ("ca", "en"))
    write_text(directory / "aya", 60, 6, ("en",))
    (directory / "tasks").mkdir()
    (directory / "tasks/belebele.jsonl").write_text(json.dumps({"question": " ".join(QUESTION)}))
    (directory / "my-run.yaml").write_text(CONFIGURATION)
    (directory / "factors.yaml").write_text("default: 1\nfactors: {en: 0.5}\n")
    for line in (
        "salamandra data train-tokenizer --input corpus --vocab-size 512 --out tokenizer",
        "salamandra data tokenize --input corpus --tokenizer tokenizer --out shards --validation-fraction 0.1",
        "salamandra data blend --shards shards --factors factors.yaml --out blend.yaml",
        "salamandra train my-run.yaml run_dir=runs/my-run --ranks 1",
        "salamandra hf export --checkpoint runs/my-run --out hf",
    ):
        run_shell(line, directory)
    for copy, original in (
        ("other.model", "tokenizer/tokenizer.model"),
        ("llama/tokenizer.json", "hf/tokenizer.json"),
    ):
        (directory / copy).parent.mkdir(exist_ok=True)
        shutil.copy(directory / original, directory / copy)
    shutil.copytree(directory / "hf", directory / "exports/my-model")
    return directory
