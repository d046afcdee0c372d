"""Entry point of training: ``torchrun ... -m megatron_salamandra.train CONFIG key=value ...``.

The same line in the same ``run_dir`` resumes. Exit codes: 0 done, 2 bad usage or configuration,
75 stopped early with everything saved (start the same line again), 76 hung, others are failures.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

from megatron_salamandra.cluster import report_end
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_DONE, EXIT_FAILURE, EXIT_STOPPED
from megatron_salamandra.foundation.parents import end_with_parent
from megatron_salamandra.foundation.signals import WATCHED_SIGNALS, SignalWatch
from megatron_salamandra.foundation.world import is_first_task, read_world
from megatron_salamandra.hangs import PROGRESS, Part

if TYPE_CHECKING:
    from megatron_salamandra.run_directory import RunDirectory
    from megatron_salamandra.training import Runtime, Trainer

_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Variable that torchrun sets for its ranks."""
SILENT_SECONDS = 3.0
"""How long ranks that leave the word to rank 0 wait before they end."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of ``python -m megatron_salamandra.train``."""
    parser = argparse.ArgumentParser(
        prog="megatron_salamandra.train",
        description="Train from a configuration file or preset; resumes if run_dir holds a checkpoint.",
    )
    add_arguments(parser)
    return parser.parse_intermixed_args(argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every way to start training takes."""
    parser.add_argument("config", help="YAML file, or the name of a preset such as salamandra-2b")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example parallel.tensor=2")
    parser.add_argument(
        "--platform",
        choices=["auto", "cuda", "host"],
        help="short for platform=...: host forces the CPU on a machine that has a GPU",
    )


def all_overrides(arguments: argparse.Namespace) -> list[str]:
    """The overrides of a command line, ``--platform`` among them."""
    platform = [f"platform={arguments.platform}"] if arguments.platform else []
    return [*arguments.overrides, *platform]


def main(
    argv: list[str] | None = None,
    build: Callable[[Runtime], Trainer] | None = None,
    signals: SignalWatch | None = None,
) -> int:
    """Run one rank and return its exit code.

    Args:
        build: makes the trainer; ``Trainer.build`` unless a program or a test has parts of its own.
        signals: the caller's watch, if signals are watched already. Until the ranks have joined, a signal finds
            nothing begun and ends the process at once.
    """
    if signals is None:
        with SignalWatch(leave_at_once=True) as own_watch:
            return main(argv, build, own_watch)
    first = is_first_task()
    number = os.environ.get("RANK", "0")
    rank = int(number) if number.isdecimal() else 0
    signals.before_leaving(lambda: report_end(rank, EXIT_STOPPED))
    try:
        code = _run_rank(parse_arguments(argv), signals, build)
        report_end(rank, code)
        return code
    except UserError as error:
        report_end(rank, error.exit_code, str(error))
        if error.of_one_rank and not error.said:
            print(f"rank {rank} on {socket.gethostname()}: {error}", file=sys.stderr)
        elif first and not error.said:
            print(error, file=sys.stderr)
        elif not error.said and signals.leaves_at_once and not first:
            # A launcher that ends all tasks with the first that fails must not end rank 0 before it has spoken.
            time.sleep(SILENT_SECONDS)
            if _ends_together():  # and this rank still lives, so rank 0 has not found it
                print(f"rank {rank} on {socket.gethostname()}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        report_end(rank, EXIT_FAILURE, "".join(traceback.format_exception_only(error)))
        raise
    finally:
        signals.begin()


def _ends_together() -> bool:
    """Whether the launcher ends all ranks with the first that fails; others leave each to say what it finds."""
    one_host = os.environ.get("LOCAL_WORLD_SIZE", "") == os.environ.get("WORLD_SIZE")
    return one_host or _TORCHRUN in os.environ


def run_as_process(argv: Sequence[str] | None = None) -> int:
    """Run one rank as the whole of this process, watching signals from here on; returns its exit code.

    An error that nobody answers is printed with its traceback here, and is not left to the interpreter, whose shutdown
    comes with it (see :func:`leave_process`).
    """
    # First of all, so that a signal finds its handler from the first line on.
    with SignalWatch(leave_at_once=True) as watch:
        if _TORCHRUN in os.environ:  # whose ranks would train on without it, and keep the run directory
            end_with_parent(signal.SIGTERM)
        try:
            exit_code = main(None if argv is None else list(argv), signals=watch)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # torch's CheckpointException is no Exception
            traceback.print_exc()
            exit_code = EXIT_FAILURE
        # Everything is saved and said: a late signal must not replace the exit code by its own.
        for number in WATCHED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    return exit_code


def leave_process(exit_code: int, *, stopped_as: int = EXIT_STOPPED) -> NoReturn:
    """End this process with the code of :func:`main`.

    After anything but success not through the interpreter's shutdown, where NCCL may wait for ranks that never come.

    Args:
        stopped_as: what the launcher is told instead of 75.
    """
    if exit_code != EXIT_DONE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stopped_as if exit_code == EXIT_STOPPED else exit_code)
    sys.exit(exit_code)


def _run_rank(
    arguments: argparse.Namespace, signals: SignalWatch, build: Callable[[Runtime], Trainer] | None
) -> int:
    world = read_world()
    PROGRESS.restart()
    # Not at the top: from the first line of the process on a signal is to be caught.
    from megatron_salamandra.cluster import watch_rank
    from megatron_salamandra.config import ConfigError, load_run_config
    from megatron_salamandra.run_directory import (
        RunDirectory,
        check_checkpoints_are_there,
        make_logs,
        own,
        release,
    )
    from megatron_salamandra.training import check_blends, check_initial_weights, configured_callbacks

    config = load_run_config(arguments.config, all_overrides(arguments))
    config.validate_for_world(world.size)
    config.validate_packages()
    configured_callbacks(config)
    if config.run_dir is None:
        raise ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")
    check_blends(config)
    directory = RunDirectory(config.run_dir)
    if world.is_first:
        check_initial_weights(config, directory)
    with ExitStack() as stack:
        owner = None
        if world.is_first:
            signals.before_leaving(lambda: release(directory))
            # Entered first, so that it comes after the directory was given back.
            report = stack.enter_context(ExitStack())
            owner = stack.enter_context(own(directory))
            check_checkpoints_are_there(directory)
            make_logs(directory)
            report.callback(_write_report, directory)
        watchdog = stack.enter_context(watch_rank(config, directory, world))
        PROGRESS.enter(Part.START, "imports")
        if not world.is_first:
            # What libraries written in C++ warn of is once enough, and ranks that lose rank 0 need no stack of it.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        # Only now: what is refused by now should not cost the import of torch on every rank.
        from megatron_salamandra.training import Runtime, StopRequested, Trainer

        try:
            with Runtime.start(config, world, signals, owner, watchdog) as runtime:
                return (build or Trainer.build)(runtime).run()
        except StopRequested:
            return EXIT_STOPPED


def _write_report(directory: RunDirectory) -> None:
    from megatron_salamandra.report import write_report_in_time
    from megatron_salamandra.run_directory import read_owner

    if not directory.config.is_file():
        return  # refused before anything was begun
    if read_owner(directory) is None:  # a run that was taken over may not write there any more
        write_report_in_time(directory.path)


if __name__ == "__main__":
    leave_process(run_as_process())
