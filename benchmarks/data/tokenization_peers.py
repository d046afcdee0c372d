"""The peers of ``tokenization.py``: CORPUS MODEL OUT (datatrove [workers] | sentencepiece-loop | bare-encoder NAME)."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

EOD = "</s>"


def run_datatrove(corpus: Path, model: Path, out: Path, workers: int) -> None:
    """datatrove's own pipeline; its tokenizer is the Hugging Face form of the model, written by our converter."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import MegatronDocumentTokenizer

    from salamandra_data.tokenization.backends.gigatoken_backend import converted_model
    from salamandra_data.tokenization.backends.model_file import read_model

    out.mkdir(parents=True)
    tokenizer = out / "tokenizer.json"
    tokenizer.write_bytes(converted_model(read_model(model)))
    LocalPipelineExecutor(
        [
            JsonlReader(str(corpus), glob_pattern="*.jsonl"),
            MegatronDocumentTokenizer(str(out), tokenizer_name_or_path=str(tokenizer), eos_token=EOD),
        ],
        tasks=len(list(corpus.glob("*.jsonl"))),
        workers=workers,
        logging_dir=str(out / "logs"),
    ).run()


def run_sentencepiece_loop(corpus: Path, model: Path, out: Path) -> None:
    """One document at a time into Megatron-Core's builder."""
    import numpy as np
    import sentencepiece
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    out.mkdir(parents=True)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for path in sorted(corpus.glob("*.jsonl")):
        builder = IndexedDatasetBuilder(str(out / f"{path.stem}.bin"), dtype=np.int32)
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                ids = [*processor.encode(json.loads(line)["text"]), processor.eos_id()]
                builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(str(out / f"{path.stem}.idx"))


def run_bare_encoder(corpus: Path, model: Path, name: str) -> None:
    """One encoder alone, on the texts that fast encoders may have, in batches."""
    import orjson

    from salamandra_data.tokenization.backends.exactness import may_be_fast
    from salamandra_data.tokenization.backends.selection import load_backend
    from salamandra_data.tokenization.encoder import Encoder

    batches: list[list[bytes]] = [[]]
    size = 0
    for path in sorted(corpus.glob("*.jsonl")):
        for line in path.open("rb"):
            text = orjson.loads(line)["text"]
            if may_be_fast(text):
                batches[-1].append(text.encode())
                size += len(batches[-1][-1])
            if size > 1 << 20:
                batches.append([])
                size = 0
    with tempfile.TemporaryDirectory() as cache:
        if name == "sentencepiece":
            encode = Encoder(model).encode_rows
        else:
            encode = load_backend(name, model, Path(cache)).encode
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            encode(batch)
        report = {"encode_wall_s": time.perf_counter() - wall, "encode_cpu_s": time.process_time() - cpu}
    print(json.dumps(report))


if __name__ == "__main__":
    corpus, model, out, variant, *rest = sys.argv[1:]
    if variant == "datatrove":
        run_datatrove(Path(corpus), Path(model), Path(out), int(rest[0]) if rest else 1)
    elif variant == "sentencepiece-loop":
        run_sentencepiece_loop(Path(corpus), Path(model), Path(out))
    else:
        run_bare_encoder(Path(corpus), Path(model), *rest)
