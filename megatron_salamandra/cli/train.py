"""``salamandra train``: start a run on this machine."""

from __future__ import annotations

import argparse

from megatron_salamandra.cli._command import Subparsers
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.train import add_arguments, all_overrides


def register(subparsers: Subparsers) -> None:
    """Add the ``train`` command."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on this machine; resumes if the run directory holds a checkpoint",
        description="Reads a run configuration and a blend plan, writes the run directory (config.yaml, "
        "blend.lock.yaml, ordinals.lock.yaml, metrics.jsonl, validation.jsonl, events.jsonl, tensorboard/, "
        "checkpoints/, logs/). The same command resumes. On a cluster start one "
        "`python -m megatron_salamandra.train` per GPU instead: see launch/.",
        epilog="Exit codes: 0 done, 2 bad usage or configuration, 75 stopped early with everything saved, 76 hung.",
    )
    add_arguments(parser)
    parser.set_defaults(command=parser, anywhere="overrides")
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="processes to start; default: one per GPU, or parallel.tensor * parallel.pipeline without GPUs",
    )
    parser.set_defaults(handler=_train)


def _train(arguments: argparse.Namespace) -> int:
    # Until ranks are started there is nothing to lose: a request to stop ends this process with 75 at once.
    with SignalWatch(leave_at_once=True) as signals:
        return _start_ranks(arguments, signals)


def _start_ranks(arguments: argparse.Namespace, signals: SignalWatch) -> int:
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.local_launch import default_ranks, run_ranks

    overrides = all_overrides(arguments)
    config = load_run_config(arguments.config, overrides)
    ranks = arguments.ranks or default_ranks(config)
    config.validate_for_world(ranks)
    config.validate_packages()
    return run_ranks("megatron_salamandra.train", [arguments.config, *overrides], ranks, signals, config)
