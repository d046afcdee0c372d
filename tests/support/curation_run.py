"""A small curation run in this process, and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from salamandra_data.curation import CurationSettings, curate
from salamandra_data.execution import LocalSettings

Records = Sequence[Mapping[str, Any]]


def write_records(path: Path, records: Records) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def curated(directory: Path, records: Records | Mapping[str, Records], **changes: Any) -> dict[str, Any]:
    """The report of a run on ``records``, of one file or by name of file; no step but those asked for."""
    by_file = records if isinstance(records, Mapping) else {"a.jsonl": records}
    for name, its_records in by_file.items():
        write_records(directory / "in" / name, its_records)
    options: dict[str, Any] = {
        "check_language": False, "score": False, "exact": False, "near": False, "paragraphs": False,
        "mask_personal_data": False,
    }  # fmt: skip
    if changes.get("identify_language"):
        del options["check_language"]
    settings = CurationSettings(
        input=(str(directory / "in"),), out=directory / "out", **{**options, **changes}
    )
    _, result = curate(settings, LocalSettings(1))
    assert result is not None
    return result.report


def kept(directory: Path) -> list[dict[str, Any]]:
    """The documents that :func:`curated` wrote."""
    found: list[dict[str, Any]] = []
    for path in sorted((directory / "out/documents").iterdir()):
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            found += [json.loads(line) for line in stream.read().splitlines()]
    return found


def removed(report: Mapping[str, Any]) -> dict[str, int]:
    """Documents by reason, of reasons that occurred."""
    return {
        reason: sum(tally["documents"] for tally in tallies.values())
        for reason, tallies in report["removed"].items()
        if tallies
    }


def samples(directory: Path, reason: str) -> list[dict[str, Any]]:
    """What was kept of the documents removed for a reason."""
    return [json.loads(line) for line in (directory / f"out/removed/{reason}.jsonl").read_text().splitlines()]
