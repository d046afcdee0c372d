"""A corpus that makes one shard, with one worker and with two, by this version and, where given, by an earlier one.

The unit of tokenization was the shard once, so that one shard was encoded by one worker however many there were. All
variants take turns (``--rounds``), and each row is the median of its rounds: wall clock, CPU time, and
the longest chain of CPU time.

    python benchmarks/data/one_language.py CORPUS --tokenizer tokenizer.model --before OTHER/bin/salamandra --json FILE

CORPUS is a file or directory of JSON lines with the key ``text``, all of it taken for one language.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path


def measure(command: list[str]) -> dict[str, float]:
    """Wall clock, CPU time with the workers', and the CPU time of the longest chain: the command and one worker.

    The chain is what the wall clock would show where nothing else runs; the clock itself says little on a busy machine.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own, workers = 0.0, dict[int, float]()
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        own = max(own, _cpu_seconds(process.pid))
        workers |= {pid: _cpu_seconds(pid) or workers.get(pid, 0.0) for pid in _children(process.pid)}
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "chain_s": own + max(workers.values(), default=0.0),
    }


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for found in lists for child in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model file")
    parser.add_argument("--before", help="`salamandra` of an earlier version")
    parser.add_argument("--encoder", nargs="+", default=["sentencepiece", "auto"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    versions = {"now": [sys.executable, "-m", "megatron_salamandra.cli"]}
    if options.before:
        versions["before"] = [options.before]
    rows: dict[str, list[dict[str, float]]] = {}
    digests = set()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        common = ["--input", str(options.corpus), "--tokenizer", str(options.tokenizer), "--out", str(out)]
        for _ in range(options.rounds):
            for encoder in options.encoder:
                for workers in (1, 2):
                    for name, program in versions.items():
                        command = [*program, "data", "tokenize", *common, "--language", "xx"]
                        row = measure([*command, "--encoder", encoder, "--workers", str(workers)])
                        (shard,) = out.glob("*.bin")
                        digests.add(hashlib.sha256(shard.read_bytes()).hexdigest())
                        shutil.rmtree(out)
                        rows.setdefault(f"{name}, {encoder}, {workers} workers", []).append(row)
    assert len(digests) == 1, "the shards differ"
    medians = {
        name: {
            key: round(statistics.median(row[key] for row in found), 2)
            for key in ("wall_s", "cpu_s", "chain_s")
        }
        for name, found in rows.items()
    }
    for name, row in sorted(medians.items()):
        print(
            f"{name:<36} {row['wall_s']:6.2f} s wall  {row['cpu_s']:6.2f} s CPU  {row['chain_s']:6.2f} s chain"
        )
    if options.json:
        report = {"date": date.today().isoformat(), "cores": os.cpu_count(), "rounds": options.rounds}
        options.json.write_text(json.dumps({**report, "results": medians}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
