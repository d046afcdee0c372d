"""What a rank of a supervised run does, without a model: the protocol alone, in a third of a second.

    stand_in_training.py RUN_DIR --steps 40 [--step-seconds 0.1] [--save-every 5] [--fault KIND@STEP[:ROUND]]...

Rank 0 counts steps, beats, obeys ``control/``, saves; every step waits for all ranks, as a collective does. A fault
happens on the last rank (``--faulty-rank`` says another), once the run has reached a step, and only in the given round
(1 unless said, 0 for all). With ``--deaf`` the ranks of round 1 do not stop when they are asked to; they take
``--start-seconds`` before their first step, and ``--save-seconds`` for each save.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from megatron_salamandra.cluster import ControlFiles, report_end
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_HUNG, EXIT_STOPPED
from megatron_salamandra.foundation.json_files import append_json_lines
from megatron_salamandra.hangs import PROGRESS, Limits, Part, RoundFiles, Watchdog
from megatron_salamandra.run_directory import RunDirectory


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--step-seconds", type=float, default=0.1)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--fault", default=[], action="append")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--faulty-rank", type=int)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--save-seconds", type=float, default=0.0)
    options = parser.parse_args()
    rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    round_dir = Path(os.environ["SALAMANDRA_ROUND_DIR"])
    this_round = int(round_dir.name.split("-")[1])
    faults = [fault for text in options.fault if (fault := read_fault(text, this_round)) is not None]
    if rank != (world - 1 if options.faulty_rank is None else options.faulty_rank):
        faults = []
    signalled: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: signalled.append(number))
    watchdog = Watchdog(
        RunDirectory(options.run_dir),
        RoundFiles(round_dir),
        rank,
        world,
        # Long: the supervisor is to find the hang. It also sets how often ranks write where they are.
        Limits(10.0, 10.0, 10.0, 10.0),
        lambda text: report_end(rank, EXIT_HUNG, text),
    )
    if this_round == 1:
        time.sleep(options.start_seconds)
    with watchdog:
        return train(options, rank, world, round_dir, faults, signalled)


def train(
    options: argparse.Namespace,
    rank: int,
    world: int,
    round_dir: Path,
    faults: list[tuple[str, int]],
    signalled: list[int],
) -> int:
    this_round = int(round_dir.name.split("-")[1])
    counters = [round_dir / f"step-{number}" for number in range(world)]
    next_round = round_dir.with_name(f"round-{this_round + 1:04d}")
    if rank:
        while not (round_dir / "rank-00000.json").exists():
            if next_round.exists():  # cut off: the others are gone, as the next collective shows
                return 1
            time.sleep(0.03)
            if (reached := read(counters[0])) != PROGRESS.place.step:
                PROGRESS.enter(Part.FORWARD, step=reached)
            fail_at(reached, faults, rank)
            counters[rank].write_text(str(reached))
        return 0
    control = ControlFiles(options.run_dir)
    state = options.run_dir / "state.json"
    step = json.loads(state.read_text())["step"] if state.exists() else 0
    stop = False
    while step < options.steps and not stop:
        time.sleep(options.step_seconds)
        step += 1
        PROGRESS.enter(Part.REDUCE, step=step)
        counters[0].write_text(str(step))
        fail_at(step, faults, rank)
        while any(read(counter) < step for counter in counters):
            time.sleep(0.02)
            if next_round.exists():
                return 1
        control.beat()
        line = {"step": step, "host": os.uname().nodename, "round": this_round, "time": time.time()}
        append_json_lines(options.run_dir / "metrics.jsonl", [line])
        asked = control.asked("stop")
        stop = bool(signalled) or asked is not None
        if options.deaf and this_round == 1:
            stop = False
        elif asked is not None:
            control.take_up("stop")
        if step % options.save_every == 0 or stop or step == options.steps:
            part = state.with_suffix(".part")
            part.write_text(json.dumps({"step": step, "steps": options.steps}))
            time.sleep(options.save_seconds if this_round == 1 else 0.0)
            part.replace(state)
    code = EXIT_DONE if step >= options.steps else EXIT_STOPPED
    report_end(0, code)
    return code if code == EXIT_DONE else 0


def read_fault(text: str, this_round: int) -> tuple[str, int] | None:
    kind, _, place = text.partition("@")
    step, _, of_round = place.partition(":")
    return (kind, int(step)) if int(of_round or 1) in (0, this_round) else None


def fail_at(step: int, faults: list[tuple[str, int]], rank: int) -> None:
    for kind, step_of_fault in faults:
        if step >= step_of_fault:
            fail(kind, rank)


def read(counter: Path) -> int:
    try:
        return int(counter.read_text())
    except (OSError, ValueError):  # not there yet, or being written
        return 0


def fail(kind: str, rank: int) -> None:
    if kind == "crash":
        report_end(rank, 1, "out of memory on the stand-in")
        sys.exit(1)
    if kind == "configuration":
        report_end(0, 2, "configs/x.yaml: parallel.tensor = 3")
        report_end(rank, 2, "configs/x.yaml: parallel.tensor = 3")
        sys.exit(2)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}[kind])


if __name__ == "__main__":
    sys.exit(main())
