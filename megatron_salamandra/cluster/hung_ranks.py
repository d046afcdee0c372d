"""A rank that hangs: how it is watched, what it says before it ends, and who says it for all."""

from __future__ import annotations

import contextlib
import os
import sys

from megatron_salamandra.cluster.rank_report import report_end
from megatron_salamandra.cluster.rounds import RankFailure
from megatron_salamandra.config import RunConfig
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_HUNG
from megatron_salamandra.foundation.world import World
from megatron_salamandra.hangs import Hang, Limits, RoundFiles, Watchdog, describe_hang, round_directory
from megatron_salamandra.run_directory import ROUND_DIR, EventLog, RunDirectory


class HungElsewhere(UserError):
    """This rank failed because ranks that hang, or wait for one that does, have ended."""

    exit_code = EXIT_HUNG
    said = True


def limits_of(config: RunConfig) -> Limits:
    """How long a rank of a run may stay where it is."""
    hangs = config.hangs
    collective = hangs.collective_seconds
    if collective is None and hangs.step_seconds is not None:
        collective = 2 * hangs.step_seconds
    return Limits(
        hangs.start_seconds,
        hangs.step_seconds,
        hangs.save_seconds,
        hangs.validation_seconds,
        collective,
    )


def watch_rank(config: RunConfig, directory: RunDirectory, world: World) -> Watchdog:
    """The watchdog of this rank, not started yet. Before it ends the rank, that reports why."""
    files = RoundFiles(round_directory(directory))

    def last_words(sentence: str) -> None:
        report_end(world.rank, EXIT_HUNG, sentence)
        if ROUND_DIR not in os.environ and files.first_to_speak():  # else the launcher says it
            tell_hang(directory, describe_hang(files) or Hang((), sentence))

    return Watchdog(directory, files, world.rank, world.size, limits_of(config), last_words)


def tell_hang(directory: RunDirectory, hang: Hang) -> None:
    """Say what hangs, on the console and in the run's events."""
    with contextlib.suppress(OSError):
        print(f"hang: {hang.text}", file=sys.stderr, flush=True)
    record_hang(directory, hang)


def failure_of(hang: Hang) -> RankFailure:
    """The hang as the failure of the rank whose host is best avoided; of an unknown one where there is none."""
    suspect = hang.suspect
    if suspect is None:
        return RankFailure(-1, "", EXIT_HUNG, hang.text)
    return RankFailure(suspect.rank, suspect.host, EXIT_HUNG, hang.text)


def record_hang(directory: RunDirectory, hang: Hang) -> None:
    """Write what hangs into the run's events."""
    late = [{"rank": r.rank, "host": r.host, "place": str(r.place)} for r in hang.late]
    EventLog(directory.events, enabled=True).write("hang", what=hang.text, late=late)
