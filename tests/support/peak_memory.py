"""How much memory reading a file takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import re, sys
from pathlib import Path
from salamandra_data.readers import DocumentFile, DocumentKeys

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def documents(name):
    keys = DocumentKeys(language="ca")
    return sum(len(batch) for batch in DocumentFile(Path(name), keys).batches())

documents(sys.argv[1])  # so that the packages are loaded
before = peak_kib()
print(documents(sys.argv[2]), (peak_kib() - before) / 1024)
"""


def reading_growth(path: Path, small: Path) -> tuple[int, float]:
    """Documents in ``path``, and by how many MiB the peak memory of a process grows when it reads them.

    Args:
        path: an input file.
        small: another of the same format, read before the memory is looked at.
    """
    # Not ru_maxrss, which starts at the peak of the process that started this one.
    output = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(small), str(path)], check=True, capture_output=True, text=True
    ).stdout
    documents, mib = output.split()
    return int(documents), float(mib)
