"""What a campaign has tried so far, one JSON object a line, so that it goes on where it was broken off."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from megatron_salamandra.foundation.json_files import append_json_lines, read_json_lines

_UNTRIED = {"problems": ["not tried"]}


class CampaignBook:
    """Results by case, and a line on the console for each."""

    def __init__(self, path: Path, seed: int) -> None:
        """Go on with what ``path`` holds of this seed."""
        self._path, self._seed = path, seed
        self._done = {
            (entry["kind"], entry["case"]): entry
            for entry in read_json_lines(path)
            if entry.get("seed") == seed
        }

    @property
    def results(self) -> list[dict[str, Any]]:
        """Everything tried, in order."""
        return list(self._done.values())

    def carry_out(self, kind: str, cases: int, attempt: Callable[[int], dict[str, Any]]) -> None:
        """Try cases 0 to ``cases`` that were not tried yet, or did not end as they should.

        Args:
            kind: what is tried.
            attempt: tries a case; ``problems`` of what it returns is a list, empty if all is well.
        """
        todo = [number for number in range(cases) if self._done.get((kind, number), _UNTRIED)["problems"]]
        started = time.monotonic()
        for position, number in enumerate(todo, 1):
            began = time.monotonic()
            result = attempt(number)
            seconds = round(time.monotonic() - began, 1)
            entry = {"kind": kind, "case": number, "seed": self._seed, "seconds": seconds, **result}
            append_json_lines(self._path, [entry])
            self._done[kind, number] = entry
            spent = time.monotonic() - started
            left = spent / position * (len(todo) - position)
            verdict = "; ".join(result["problems"]) or "ok"
            print(
                f"{kind} {number} of {cases}: {result['what']}: {verdict} "
                f"({60 * position / spent:.1f} a minute, {left / 60:.0f} min left)",
                flush=True,
            )

    def failures(self) -> list[dict[str, Any]]:
        """What did not end as it should."""
        return [entry for entry in self.results if entry["problems"]]


def table(results: Iterable[dict[str, Any]]) -> str:
    """Markdown: for each kind and group how many were tried, and how they ended."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for entry in results:
        row = rows.setdefault((entry["kind"], entry["group"]), Counter())
        row["tried"] += 1
        row["reached"] += bool(entry.get("reached", True))
        row["failed"] += bool(entry["problems"])
        row["most"] = max(row["most"], int(entry.get("repeated", 0)))
    lines = [
        "| kind | where | tried | took place | not as promised | most steps repeated |",
        "|---|---|---|---|---|---|",
    ]
    for (kind, group), row in sorted(rows.items()):
        repeated = row["most"] if kind == "kill" else ""
        lines.append(
            f"| {kind} | {group} | {row['tried']} | {row['reached']} | {row['failed']} | {repeated} |"
        )
    return "\n".join(lines) + "\n"


def write_results(directory: Path, results: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """``table.md`` and ``results.json``."""
    (directory / "table.md").write_text(table(results))
    (directory / "results.json").write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
