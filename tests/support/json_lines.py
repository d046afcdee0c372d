"""Files of documents for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def write_json_lines(path: Path, documents: Sequence[dict[str, str]]) -> Path:
    """One document per line."""
    path.write_text("".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents))
    return path
