"""Program text for the ``code`` source: the standard library of the Python that is running."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from pathlib import Path

from salamandra_data.demo.documents import CorpusWriter, Document
from salamandra_data.errors import DataError
from salamandra_data.languages import CODE

_LICENCE = "PSF-2.0"
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "__pycache__",
}
_MIN_FILE_BYTES = 500
_MAX_FILE_BYTES = 40_000


def add_python_code(writer: CorpusWriter, *, max_bytes: int = 1_500_000) -> dict[str, str]:
    """Add source files of the standard library, in an order given by their names' hashes, up to ``max_bytes``.

    Returns:
        The record for SOURCES.json.

    Raises:
        DataError: this interpreter has no readable sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    version = platform.python_version()
    files = [path for path in root.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(root).parts)]
    files.sort(key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    total = 0
    for path in files:
        if not _MIN_FILE_BYTES <= path.stat().st_size <= min(_MAX_FILE_BYTES, max_bytes - total):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        name = path.relative_to(root).as_posix()
        writer.add(Document(text, CODE, f"CPython {version} standard library", _LICENCE, f"cpython/{name}"))
        total += path.stat().st_size
    if total == 0:
        raise DataError(
            f"demo corpus: no Python sources under {root}\n"
            "  remedy: use an interpreter that has its library as .py files"
        )
    return {
        "name": "CPython standard library",
        "version": version,
        "licence": _LICENCE,
        "file": "",
        "sha256": "",
    }
