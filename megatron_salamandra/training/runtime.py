"""Everything around the loop that must be started and closed: platform, ranks, directory, logs."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_salamandra.config import ConfigError, RunConfig
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.parallel import ProcessGrid, start_process_grid
from megatron_salamandra.platform import Platform, select_platform
from megatron_salamandra.run_directory import EventLog, RunDirectory
from megatron_salamandra.training.environment import record_environment
from megatron_salamandra.training.logs import start_logging, stop_logging


def is_told_to_the_user(error: Exception) -> bool:
    """True for errors whose message is all a user needs: ours, found by every rank alike."""
    return isinstance(error, ValueError) and type(error).__module__.startswith(
        ("megatron_salamandra.", "salamandra_data.")
    )


@dataclass(frozen=True)
class Runtime:
    """What a trainer needs to know about its surroundings."""

    config: RunConfig
    directory: RunDirectory
    platform: Platform
    grid: ProcessGrid
    logger: logging.Logger
    events: EventLog
    signals: SignalWatch

    @classmethod
    @contextmanager
    def start(cls, config: RunConfig) -> Iterator[Runtime]:
        """Bring everything up, yield, and take it down again; failures are logged with their rank.

        Raises:
            ConfigError: no ``run_dir``, or the layout does not fit the number of ranks. Raised
                before this rank joins the others.
            PlatformError: the platform asked for is not usable here.
        """
        if config.run_dir is None:
            raise ConfigError("run_dir is not set\n  name the run's directory: run_dir=runs/my-run")
        config.validate_for_world(int(os.environ.get("WORLD_SIZE", "1")))
        directory = RunDirectory(config.run_dir)
        platform = select_platform(config.platform)
        with ExitStack() as stack:
            # First in, last out: a second signal while leaving must not kill a rank that has saved.
            signals = stack.enter_context(SignalWatch())
            platform.start(int(os.environ.get("LOCAL_RANK", "0")))
            stack.callback(platform.stop)
            grid = stack.enter_context(start_process_grid(config.parallel, config.training.seed, platform))
            logger = start_logging(directory.rank_log(grid.rank), grid.rank)
            stack.callback(stop_logging, logger)
            events = EventLog(directory.events, enabled=grid.rank == 0)
            logger.info("%s; %s", grid.describe(), platform.description())
            try:
                yield cls(config, directory, platform, grid, logger, events, signals)
            except Exception as error:
                alone = not is_told_to_the_user(error)
                if alone or grid.rank == 0:
                    events.write("failure", rank=grid.rank, error=f"{type(error).__name__}: {error}")
                if alone:
                    path = directory.rank_log(grid.rank)
                    logger.exception("rank %d on %s failed; log: %s", grid.rank, socket.gethostname(), path)
                raise

    def record(self) -> None:
        """Write ``config.yaml`` and ``environment.json`` once the run is known to be sound; collective."""
        if self.grid.rank == 0:
            atomic_write_bytes(self.directory.config, self.config.to_yaml().encode())
        record_environment(self.directory.environment, self.grid, self.platform)

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        """Sum a few numbers over all ranks in fp64; collective."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.platform.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def max_over_ranks(self, value: int) -> int:
        """The largest of the ranks' values; collective."""
        tensor = torch.tensor([value], dtype=torch.int64, device=self.platform.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor.item())
