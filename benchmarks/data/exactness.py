"""Proof on real text: our shards are the bytes of Megatron-Core's IndexedDatasetBuilder fed by SentencePiece.

For every fast encoder, tokenizes CORPUS (a directory of ``.jsonl`` files with the keys ``text`` and ``language``) into
one shard per language, then reads the corpus again with the standard library, puts each language's documents in the
order that their places and the seed decide, encodes them with SentencePiece, gives them to the builder, and compares
the files byte for byte. Last, encodes random texts that are hard to encode, and counts differences.

    python benchmarks/data/exactness.py CORPUS --tokenizer tokenizer.model --json FILE
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from salamandra_data.readers import find_inputs
from salamandra_data.tokenization import TokenizeJob, tokenize
from salamandra_data.tokenization.backends import selection
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.backends.model_file import SPACE, read_model
from salamandra_data.tokenization.document_hash import shuffle_keys
from salamandra_data.tokenization.encoder import Encoder

SEED = 11
FAST = ("gigatoken", "kitoken")
ALPHABETS = (
    "=-", "ab", "aab ", " \n", "\t \n", "01", "<s>/|imstart_end", "-_=~*#", "à`e´ ", "αβγ ", "\\rn", "\r\n",
    "xyz\u0300\u0301", "e\u0301o\u0323\u0302", "가각\u1100\u1161\u11a8", "กาำ่", "\x00a", "\u2581 a", "\ud7ff\ue000",
    "😀\u200d👩🏳\ufe0f", "नमस्ते ",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model file")
    parser.add_argument("--texts", type=int, default=100_000, help="random texts (default: 100000)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    encoders: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        theirs = directory / "megatron"
        text_bytes, documents = build_with_megatron(options.corpus, options.tokenizer, theirs)
        for name in FAST:
            ours = directory / name
            job = TokenizeJob(
                [options.corpus], options.tokenizer, ours, seed=SEED, shard_tokens=10**12, encoder=name
            )
            result = tokenize(job)
            different = [
                path.name
                for path in sorted(theirs.iterdir())
                if not filecmp.cmp(path, ours / path.name, shallow=False)
            ]
            encoders[name] = {
                "version": result.encoder.version,
                "files_compared": len(list(theirs.iterdir())),
                "files_different": different,
                **fuzz(name, options.tokenizer, options.texts, directory),
            }
            print(name, encoders[name])
    print(f"{documents:,} documents, {text_bytes:,} bytes of text")
    if options.json:
        report = {
            "environment": {
                "date": date.today().isoformat(),
                "processor": platform.machine(),
                "versions": {name: version(name) for name in ("sentencepiece", "megatron-core", *FAST)},
            },
            "command": "python benchmarks/data/exactness.py CORPUS --tokenizer MODEL",
            "corpus": {"documents": documents, "text_bytes": text_bytes},
            "vocab_size": Encoder(options.tokenizer).identity.vocab_size,
            "results": encoders,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    wrong = any(row["files_different"] or row["random_texts_different"] for row in encoders.values())
    return 1 if wrong else 0


def build_with_megatron(corpus: Path, model: Path, out: Path) -> tuple[int, int]:
    """The expected files, without our reader, encoder or writer; returns bytes of text and documents."""
    import sentencepiece
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    out.mkdir()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    dtype = DType.optimal_dtype(len(processor))
    languages: dict[str, list[tuple[int, str]]] = {}
    text_bytes = documents = 0
    for number, path in enumerate(find_inputs([corpus])):
        with open(os.fspath(path), encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        places = shuffle_keys(SEED, number, np.arange(1, len(records) + 1, dtype=np.uint64)).tolist()
        for place, record in zip(places, records, strict=True):
            if record["text"]:
                languages.setdefault(record["language"], []).append((place, record["text"]))
                text_bytes += len(record["text"].encode())
                documents += 1
    for language, texts in languages.items():
        prefix = out / f"{language}-train-00000"
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        for _, text in sorted(texts):
            ids = [*processor.encode(text), processor.eos_id()]
            builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(f"{prefix}.idx")
    return text_bytes, documents


def fuzz(name: str, model: Path, count: int, cache: Path) -> dict[str, int]:
    """How many random texts the rules let a fast encoder have, and how many of these it encodes otherwise."""
    reference = Encoder(model)
    backend = selection.load_backend(name, model, cache)
    texts = hard_texts(model)
    allowed = different = done = 0
    while done < count:
        batch = [next(texts) for _ in range(1000)]
        done += len(batch)
        fast = [text.encode() for text in batch if may_be_fast(text)]
        allowed += len(fast)
        right, found = reference.encode_rows(fast).split(), backend.encode(fast).split()
        different += sum(not np.array_equal(one, other) for one, other in zip(right, found, strict=True))
    return {"random_texts": done, "of_which_fast": allowed, "random_texts_different": different}


def hard_texts(model: Path) -> Iterator[str]:
    """Few letters in many orders, pieces of the model in any order, any characters of Unicode."""
    chance = random.Random(SEED)
    values = read_model(model)
    pieces = [piece.replace(SPACE, " ") for piece in values.scores()]
    symbols = [piece.replace(SPACE, " ") for piece in values.user_defined()]
    while True:
        kind = chance.randrange(6)
        if kind == 0:
            yield "".join(chance.choices(chance.choice(ALPHABETS), k=chance.randint(1, 60)))
        elif kind == 1:
            yield "".join(chance.choices(pieces, k=chance.randint(1, 20)))
        elif kind == 2:
            yield chance.choice(pieces) * chance.randint(1, 12)
        elif kind == 3:
            yield "".join(
                chance.choice(symbols if chance.random() < 0.3 else pieces)
                for _ in range(chance.randint(1, 20))
            )
        else:
            last = 0x110000 if kind == 4 else 0x3000
            codes = (chance.randrange(last) for _ in range(chance.randint(1, 30)))
            yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


if __name__ == "__main__":
    sys.exit(main())
