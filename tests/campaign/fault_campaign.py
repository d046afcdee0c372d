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

from campaign_book import CampaignBook, table, write_results
from disturbed_runs import Broken, Start, command, differences, disturb, start
from flips import Flips, make_blend
from forked_ranks import ForkedRanks
from kill_plan import KillCase, kill_case


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="of ranks started by commands")
    parser.add_argument(
        "--forked", type=int, default=100, metavar="N", help="kills of ranks without a launcher"
    )
    parser.add_argument("--flips", type=int, default=400, metavar="N", help="of single bits")
    parser.add_argument("--seed", type=int, default=20261128, help="of everything that is drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/fault-campaign"), metavar="DIR")
    options = parser.parse_args()
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}; results in {out}", flush=True)
    book = CampaignBook(out / f"tried-{options.seed}.jsonl", options.seed)
    about = {"seed": options.seed, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    try:
        blend = make_blend(out / "blend")
        kills = Kills(out, options.seed, blend)
        book.carry_out("forked ranks killed", options.forked, kills.attempt_forked)
        book.carry_out(
            "bit flipped", options.flips, Flips(out, options.seed, blend, kills.undisturbed).attempt
        )
        book.carry_out("commands killed", options.kills, kills.attempt)
    finally:
        write_results(out, book.results, about)
    print(table(book.results))
    return 1 if book.failures() else 0


class Kills:
    """Runs that are killed, below one directory."""

    def __init__(self, out: Path, seed: int, blend: Path) -> None:
        self._out, self._seed, self._blend = out, seed, blend
        self._forked = ForkedRanks()

    def attempt(self, number: int) -> dict[str, Any]:
        """Case ``number``, with commands as a user types them."""
        case = kill_case(self._seed, number, self._out / "books")
        run = self._empty(f"{number:04d}")
        arguments = command(case.launcher, self._blend, run, _saving(case))
        return self._carry_out(case, case.launcher, run, lambda point: start(arguments, run, point))

    def attempt_forked(self, number: int) -> dict[str, Any]:
        """Case ``number``, with forked ranks, which have no launcher to be killed."""
        case = kill_case(self._seed, number, self._out / "books", launchers=False)
        run = self._empty(f"forked-{number:04d}")
        return self._carry_out(
            case, "forked", run, lambda point: self._forked.start(self._blend, run, point, _saving(case))
        )

    def _carry_out(self, case: KillCase, launcher: str, run: Path, start_again: Start) -> dict[str, Any]:
        for point in case.points:
            shutil.rmtree(point.book, ignore_errors=True)
        seen: dict[str, Any] = {}
        try:
            seen = disturb(start_again, run, case.points)
            problems = differences(run, self.undisturbed())
        except Broken as error:
            problems = [str(error)]
        what = f"{launcher}, {case.stage}, {', then '.join(point.victims for point in case.points)}"
        if not problems:
            shutil.rmtree(run)
        return {"what": what, "group": f"{case.stage}: {case.victims}", "problems": problems, **seen}

    def _empty(self, name: str) -> Path:
        run = self._out / "kills" / name
        shutil.rmtree(run, ignore_errors=True)
        Path(f"{run}.log").unlink(missing_ok=True)
        return run

    def undisturbed(self) -> Path:
        """The run that the others are compared with; made when it is first asked for."""
        run = self._out / "kills" / "undisturbed"
        if not (run / "done").exists():
            self._empty(run.name)
            if code := self._forked.start(self._blend, run, None, "checkpoint.asynchronous=false"):
                raise SystemExit(f"the undisturbed run ended with {code}; see {run}.log")
            if problems := differences(run, run):
                raise SystemExit(f"the undisturbed run is not as promised: {'; '.join(problems)}")
            (run / "done").touch()
        return run


def _saving(case: KillCase) -> str:
    return f"checkpoint.asynchronous={str(case.background).lower()}"


if __name__ == "__main__":
    sys.exit(main())
