"""The long form of the fault campaign: ``make fault-campaign``.

Kills runs of real ranks, started by ``salamandra train`` and ``torchrun``, at drawn places, starts them again, and
compares what they end with; then flips bits of files that commands read. Prints each case, and goes on where it was
broken off. Exit code 1 if something is not as promised.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

from campaign_book import CampaignBook, table, write_results
from disturbed_runs import Broken, command, differences, disturb, start
from kill_plan import kill_case
from synthetic_blend import write_blend


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=20261128, help="of everything that is drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/fault-campaign"), metavar="DIR")
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}; results in {out}", flush=True)
    book = CampaignBook(out / f"tried-{options.seed}.jsonl", options.seed)
    about = {"seed": options.seed, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    try:
        blend = out / "blend" / "blend.yaml"
        if not blend.exists():
            write_blend(blend.parent)
        kills = _Kills(out, options.seed, blend)
        book.carry_out("kill", options.kills, kills.attempt)
    finally:
        write_results(out, book.results, about)
    print(table(book.results))
    return 1 if book.failures() else 0


class _Kills:
    def __init__(self, out: Path, seed: int, blend: Path) -> None:
        self._out, self._seed, self._blend = out, seed, blend

    def attempt(self, number: int) -> dict[str, Any]:
        case = kill_case(self._seed, number, self._out / "books")
        for point in case.points:
            shutil.rmtree(point.book, ignore_errors=True)
        run = self._out / "kills" / f"{number:03d}"
        shutil.rmtree(run, ignore_errors=True)
        Path(f"{run}.log").unlink(missing_ok=True)
        saving = f"checkpoint.asynchronous={str(case.background).lower()}"
        arguments = command(case.launcher, self._blend, run, saving)
        seen: dict[str, Any] = {}
        try:
            seen = disturb(lambda point: start(arguments, run, point), run, case.points)
            problems = differences(run, self._undisturbed())
        except Broken as error:
            problems = [str(error)]
        what = f"{case.launcher}, {case.stage}, {', then '.join(point.victims for point in case.points)}"
        if not problems:
            shutil.rmtree(run)
        return {"what": what, "group": f"{case.stage}: {case.victims}", "problems": problems, **seen}

    def _undisturbed(self) -> Path:
        run = self._out / "kills" / "undisturbed"
        if not (run / "done").exists():
            shutil.rmtree(run, ignore_errors=True)
            if code := start(command("train", self._blend, run, "checkpoint.asynchronous=false"), run, None):
                raise SystemExit(f"the undisturbed run ended with {code}; see {run}.log")
            if problems := differences(run, run):
                raise SystemExit(f"the undisturbed run is not as promised: {'; '.join(problems)}")
            (run / "done").touch()
        return run


if __name__ == "__main__":
    sys.exit(main())
