"""Tokenization beside its peers: the same documents and tokenizer, to ``.bin`` and ``.idx``, on one machine.

Every variant is a command of its own, so that start-up, worker processes and memory are counted, and variants take
turns (``--rounds``; the best of each counts). ``wall_speed`` and ``cpu_speed`` are relative to datatrove:

- ``salamandra``: `salamandra data tokenize` with gigatoken, 1 and 2 workers; global shuffle, checksums, manifests and
  the comparison with SentencePiece included;
- ``salamandra-kitoken``, ``salamandra-sentencepiece``: the same with another encoder;
- ``datatrove``: JsonlReader and MegatronDocumentTokenizer, with the Hugging Face form of the same model;
- ``sentencepiece-loop``: a document at a time: json, SentencePiece, Megatron-Core's IndexedDatasetBuilder;
- ``bare-gigatoken``, ``bare-kitoken``, ``bare-sentencepiece``: the encoder alone, on text that is in memory; only the
  encoding is timed. ``of_bare`` is the speed of our command with that encoder relative to this, by CPU time.

    python benchmarks/data/tokenization.py CORPUS --tokenizer tokenizer.model --json FILE

CORPUS is a directory of ``.jsonl`` files with the keys ``text`` and ``language``; `salamandra quickstart` builds one,
and a tokenizer. CPU time says more than the wall clock where other work shares the machine; both are given.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

MIB = 1 << 20
BATCH_BYTES = MIB
PACKAGES = ("sentencepiece", "gigatoken", "kitoken", "datatrove", "tokenizers", "megatron-core", "numpy")
BARE_OF = {
    "salamandra": "gigatoken",
    "salamandra-kitoken": "kitoken",
    "salamandra-sentencepiece": "sentencepiece",
}
PEERS = Path(__file__).with_name("tokenization_peers.py")


def variants(corpus: Path, model: Path, out: Path) -> dict[str, list[str]]:
    """The command of each variant."""
    ours = [sys.executable, "-m", "megatron_salamandra.cli", "data", "tokenize", "--input", str(corpus)]
    ours += ["--tokenizer", str(model), "--out", str(out)]
    peer = [sys.executable, str(PEERS), str(corpus), str(model), str(out)]
    return {
        "salamandra": [*ours, "--encoder", "gigatoken"],
        "salamandra, 2 workers": [*ours, "--encoder", "gigatoken", "--workers", "2"],
        "salamandra-kitoken": [*ours, "--encoder", "kitoken"],
        "salamandra-sentencepiece": [*ours, "--encoder", "sentencepiece"],
        "datatrove": [*peer, "datatrove"],
        "datatrove, 2 workers": [*peer, "datatrove", "2"],
        "sentencepiece-loop": [*peer, "sentencepiece-loop"],
        **{f"bare-{name}": [*peer, "bare-encoder", name] for name in BARE_OF.values()},
    }


def measure(command: list[str]) -> dict[str, float]:
    """Wall clock, CPU time and the largest process of a command; of its own report where it prints one."""
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.PIPE, env=environment)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}\n{errors.decode()}")
        told.seek(0)
        lines = told.read().splitlines()
    if lines and lines[-1].startswith(b'{"encode_'):
        report: dict[str, float] = json.loads(lines[-1])
        return {
            "wall_s": report["encode_wall_s"],
            "cpu_s": report["encode_cpu_s"],
            "peak_mib": usage.ru_maxrss / 1024,
        }
    wall, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    # Workers that a command does not wait for are not in its CPU time, so it says nothing then.
    return {"wall_s": wall, "cpu_s": cpu if cpu > wall / 2 else math.nan, "peak_mib": usage.ru_maxrss / 1024}


def corpus_size(corpus: Path) -> tuple[int, int]:
    """Documents and bytes of text."""
    documents = text_bytes = 0
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open("rb") as stream:
            for line in stream:
                documents += 1
                text_bytes += len(orjson.loads(line)["text"].encode())
    return documents, text_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model file")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="VARIANT")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    documents, text_bytes = corpus_size(options.corpus)
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        commands = variants(options.corpus.absolute(), options.tokenizer.absolute(), out)
        for number in range(options.rounds):
            for name in options.only or commands:
                row = measure(commands[name])
                shutil.rmtree(out, ignore_errors=True)
                print(
                    f"round {number + 1}  {name:<26} {row['wall_s']:.1f} s wall  {row['cpu_s']:.1f} s CPU",
                    flush=True,
                )
                if name not in best or row["wall_s"] < best[name]["wall_s"]:
                    best[name] = row
    first = "datatrove" if "datatrove" in best else next(iter(best))
    reference = best[first]
    for name, row in best.items():
        row["mb_per_wall_s"] = round(text_bytes / 1e6 / row["wall_s"], 2)
        row["mb_per_cpu_s"] = round(text_bytes / 1e6 / row["cpu_s"], 2)
        row["wall_speed"] = round(reference["wall_s"] / row["wall_s"], 2)
        row["cpu_speed"] = round(reference["cpu_s"] / row["cpu_s"], 2)
        if bare := best.get(f"bare-{BARE_OF.get(name)}"):
            row["of_bare"] = round(bare["cpu_s"] / row["cpu_s"], 2)
        print(
            f"{name:<26} {row['mb_per_wall_s']:>6} MB/s  {row['mb_per_cpu_s']:>6} MB/CPU-s  "
            f"peak {row['peak_mib']:>5.0f} MiB  of {first}: {row['wall_speed']} (wall), {row['cpu_speed']} (CPU)"
            + (f"  of the bare encoder: {row['of_bare']}" if "of_bare" in row else "")
        )
    if options.json:
        report = {
            "environment": {
                "date": date.today().isoformat(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "versions": {
                    "python": platform.python_version(),
                    **{name: version(name) for name in PACKAGES},
                },
            },
            "command": f"python benchmarks/data/tokenization.py CORPUS --tokenizer MODEL --rounds {options.rounds}",
            "corpus": {"documents": documents, "text_bytes": text_bytes},
            "results": {
                name: {key: round(value, 2) for key, value in row.items()} for name, row in best.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
