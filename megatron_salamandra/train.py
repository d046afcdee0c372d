"""Entry point of training: ``torchrun ... -m megatron_salamandra.train CONFIG key=value ...``.

The same line in the same ``run_dir`` resumes. Exit codes: 0 done, 2 bad usage or configuration,
75 stopped early with everything saved (start the same line again), others are failures.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron_salamandra.config import ConfigError, load_run_config
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE, EXIT_USAGE, STOP_SIGNALS

if TYPE_CHECKING:
    from megatron_salamandra.training import Runtime, Trainer


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


def main(argv: list[str] | None = None, build: Callable[[Runtime], Trainer] | None = None) -> int:
    """Run one rank and return its exit code.

    Args:
        build: makes the trainer; ``Trainer.build`` unless a program or a test has parts of its own.
    """
    arguments = parse_arguments(argv)
    first = os.environ.get("RANK", "0") == "0"
    try:
        config = load_run_config(arguments.config, all_overrides(arguments))
        config.validate_for_world(int(os.environ.get("WORLD_SIZE", "1")))
        config.validate_packages()
    except ConfigError as error:
        if first:
            print(error, file=sys.stderr)
        return EXIT_USAGE
    # Only now: a wrong configuration should not cost the import of torch on every rank.
    from megatron_salamandra.platform import PlatformError
    from megatron_salamandra.run_directory import CheckpointError
    from megatron_salamandra.training import Runtime, Trainer
    from megatron_salamandra.training.trainer import TrainingError
    from salamandra_data.errors import DataError

    try:
        with Runtime.start(config) as runtime:
            return (build or Trainer.build)(runtime).run()
    except PlatformError as error:
        # May be true of one node only.
        print(f"rank {os.environ.get('RANK', '0')} on {socket.gethostname()}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ConfigError as error:
        if first:
            print(error, file=sys.stderr)
        return EXIT_USAGE
    except (DataError, CheckpointError, TrainingError) as error:
        if first:
            print(error, file=sys.stderr)
        return EXIT_FAILURE


if __name__ == "__main__":
    exit_code = main()
    # Everything is saved and said: a late signal must not replace the exit code by its own.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if exit_code in (EXIT_USAGE, EXIT_FAILURE):
        # Not through interpreter shutdown, where NCCL may wait for ranks that will never come.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
