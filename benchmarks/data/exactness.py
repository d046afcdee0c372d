"""Proof on real text: our shards are the bytes of Megatron-Core's IndexedDatasetBuilder fed by SentencePiece.

CORPUS is a directory of ``.jsonl`` files with the keys ``text`` and ``language``; a file of texts that are hard to
encode joins it as one more language: random Unicode, combining marks, U+2581, NUL, carriage returns, words and texts
above a megabyte, and two lone surrogates, which have to be refused. For every fast encoder this is tokenized into one
shard per language. Then all is read again with the standard library, each language's documents are put in the order
that their places and the seed decide, SentencePiece encodes them whole, one by one, the builder gets them, and the
files are compared byte for byte. Last, random texts are encoded and differences counted; and documents of the corpus
are cut into pieces of 200 bytes, as only long ones are otherwise, and SentencePiece's ids compared with those of the
whole.

    python benchmarks/data/exactness.py CORPUS --tokenizer tokenizer.model --json FILE
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hard_texts import LONE_SURROGATES, hard_texts, write_hard_documents

from salamandra_data.option_groups import InputOptions
from salamandra_data.readers import find_inputs
from salamandra_data.tokenization import TokenizeJob, tokenize_documents
from salamandra_data.tokenization.backends import selection
from salamandra_data.tokenization.backends.exactness import may_be_fast
from salamandra_data.tokenization.backends.long_texts import pieces_of
from salamandra_data.tokenization.document_hash import shuffle_keys
from salamandra_data.tokenization.encoder import Encoder

SEED = 11
FAST = ("gigatoken", "kitoken")
CUT_BYTES, CUT_PIECE_BYTES = 20_000_000, 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model file")
    parser.add_argument("--texts", type=int, default=100_000, help="random texts (default: 100000)")
    parser.add_argument("--hard", type=int, default=20_000, help="hard documents in shards (default: 20000)")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    encoders: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        hard, theirs = directory / "hard.jsonl", directory / "megatron"
        hard_documents = write_hard_documents(hard, options.tokenizer, options.hard)
        inputs = [options.corpus, hard]
        text_bytes, documents = build_with_megatron(inputs, options.tokenizer, theirs)
        for name in FAST:
            ours = directory / name
            job = TokenizeJob(
                documents=InputOptions(input=tuple(map(str, inputs)), on_error="skip"),
                tokenizer=options.tokenizer,
                out=ours,
                seed=SEED,
                shard_tokens=10**12,
                encoder=name,
            )
            result = tokenize_documents(job)
            if result.malformed_lines != len(LONE_SURROGATES):
                raise SystemExit(f"{result.malformed_lines} lines were refused, not the lone surrogates")
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
    pieces = cut(options.tokenizer, options.corpus)
    print(f"{documents:,} documents, {text_bytes:,} bytes of text; in pieces: {pieces}")
    if options.json:
        report = {
            "environment": {
                "date": date.today().isoformat(),
                "processor": platform.machine(),
                "versions": {name: version(name) for name in ("sentencepiece", "megatron-core", *FAST)},
            },
            "command": "python benchmarks/data/exactness.py CORPUS --tokenizer MODEL",
            "documents": {
                "all": documents,
                "of_which_hard": hard_documents - len(LONE_SURROGATES),
                "lone_surrogates_refused": len(LONE_SURROGATES),
                "text_bytes": text_bytes,
            },
            "vocab_size": Encoder(options.tokenizer).identity.vocab_size,
            "results": encoders,
            "in_pieces": pieces,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    wrong = any(row["files_different"] or row["random_texts_different"] for row in encoders.values())
    return 1 if wrong or pieces["different"] else 0


def build_with_megatron(inputs: list[Path], model: Path, out: Path) -> tuple[int, int]:
    """The expected files, without our reader, encoder or writer; returns bytes of text and documents."""
    import sentencepiece
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    out.mkdir()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    dtype = DType.optimal_dtype(len(processor))
    languages: dict[str, list[tuple[int, str]]] = {}
    text_bytes = documents = 0
    for number, path in enumerate(find_inputs(inputs)):
        with open(os.fspath(path), encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        places = shuffle_keys(SEED, number, np.arange(1, len(records) + 1, dtype=np.uint64)).tolist()
        for place, record in zip(places, records, strict=True):
            if record["text"] and record["text"] not in LONE_SURROGATES:
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


def cut(model: Path, corpus: Path) -> dict[str, int]:
    """How many documents SentencePiece encodes otherwise in pieces than as a whole."""
    reference = Encoder(model)
    done = documents = pieces = different = 0
    for path in find_inputs([corpus]):
        budget = CUT_BYTES // len(find_inputs([corpus]))
        with open(os.fspath(path), encoding="utf-8") as stream:
            for line in stream:
                text = json.loads(line)["text"].encode()
                parts = list(pieces_of(text, CUT_PIECE_BYTES))
                whole, joined = reference.encode_rows([text]).ids, reference.encode_rows(parts).ids
                different += not np.array_equal(whole, joined)
                documents, pieces, done = documents + 1, pieces + len(parts), done + len(text)
                budget -= len(text)
                if budget < 0:
                    break
    return {"documents": documents, "text_bytes": done, "pieces": pieces, "different": different}


if __name__ == "__main__":
    sys.exit(main())
