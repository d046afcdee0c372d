"""Everything around the loop that must be started and closed: platform, ranks, directory, logs."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_salamandra.cluster import HungElsewhere, limits_of
from megatron_salamandra.config import RunConfig
from megatron_salamandra.foundation.atomic_files import atomic_write_bytes
from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.foundation.signals import SignalWatch
from megatron_salamandra.foundation.world import World
from megatron_salamandra.hangs import PROGRESS, Part, Watchdog
from megatron_salamandra.parallel import (
    CollectiveTimeouts,
    ProcessGrid,
    collectives_begun,
    is_timeout,
    start_process_grid,
)
from megatron_salamandra.platform import Platform, select_platform
from megatron_salamandra.run_directory import EventLog, RunDirectory, RunOwner, unwritable
from megatron_salamandra.training.environment import record_environment
from megatron_salamandra.training.failures import FailedElsewhere, FailedHere, Failures, Verdict, described
from megatron_salamandra.training.logs import FILE_ONLY, start_logging, stop_logging

SIGNAL_SPREAD_SECONDS = 5.0
"""How much later than the first rank the last one may get a signal that is sent to all."""


class StopRequested(Exception):
    """A signal came before the first step: there is nothing to save, and nothing is lost."""


@dataclass
class Runtime:
    """What a trainer needs to know about its surroundings."""

    config: RunConfig
    directory: RunDirectory
    platform: Platform
    grid: ProcessGrid
    logger: logging.Logger
    events: EventLog
    signals: SignalWatch
    owner: RunOwner | None
    """The right to write into the directory; on rank 0."""
    watchdog: Watchdog
    """Of this rank."""
    has_trained: bool = False
    """True from the first step of this process on."""

    @classmethod
    @contextmanager
    def start(
        cls,
        config: RunConfig,
        world: World,
        signals: SignalWatch,
        owner: RunOwner | None,
        watchdog: Watchdog,
    ) -> Iterator[Runtime]:
        """Bring everything up, yield, and take it down again; failures are logged with their rank.

        Args:
            signals: remembers signals from the moment on at which the ranks have joined.
            owner: of the run directory; on rank 0.
            watchdog: of this rank.
        Raises:
            PlatformError: the platform asked for is not usable here.
            StopRequested: a signal came before the first step.
        """
        assert config.run_dir is not None
        directory = RunDirectory(config.run_dir)
        platform = select_platform(config.platform)
        limits = limits_of(config)
        with ExitStack() as stack:
            PROGRESS.enter(Part.START, "joining the other ranks")
            platform.start(world.local_rank)
            stack.callback(platform.stop)
            platform.record_collectives(watchdog.files.stacks)
            try:
                grid = stack.enter_context(
                    start_process_grid(
                        config.parallel,
                        config.training.seed,
                        platform,
                        timeout_seconds=limits.longest(),
                    )
                )
            except Exception:
                # Perhaps a rank is missing because a signal has ended it, and this one's own is on its way.
                signals.wait(SIGNAL_SPREAD_SECONDS)
                raise
            stack.enter_context(CollectiveTimeouts(limits.longest(), limits.collective).following())
            PROGRESS.peers = f"stage {grid.pipeline_rank}"
            PROGRESS.count_collectives = collectives_begun
            PROGRESS.write_collectives = platform.write_collectives
            stack.callback(setattr, PROGRESS, "count_collectives", None)
            stack.callback(setattr, PROGRESS, "write_collectives", None)
            signals.begin()
            failures = stack.enter_context(
                Failures.of_joined_ranks(grid.rank, grid.local_rank, grid.world_size)
            )
            try:
                logger = start_logging(directory.rank_log(grid.rank), grid.rank)
            except OSError as error:
                refused = unwritable(directory, error)
                failures.settle_user_error(refused)
                raise refused from error
            stack.callback(stop_logging, logger)
            events = EventLog(directory.events, enabled=grid.rank == 0)
            logger.info("%s; %s", grid.describe(), platform.description())
            runtime = cls(config, directory, platform, grid, logger, events, signals, owner, watchdog)
            try:
                runtime.stop_if_asked()
                yield runtime
            except StopRequested as stop:
                runtime._tell_stop(stop)
                raise
            except Exception as error:
                if is_timeout(error):
                    watchdog.give_up()
                if watchdog.found:
                    raise HungElsewhere(watchdog.found) from error
                nothing_done = not (runtime.has_trained or isinstance(error, UserError) or failures.cause)
                if nothing_done and signals.wait(SIGNAL_SPREAD_SECONDS):
                    # A rank that the signal found before it had joined has left at once, and this one misses it.
                    requested = StopRequested(runtime.signal_reason)
                    runtime._tell_stop(requested)
                    raise requested from error
                said = runtime._say(error, failures)
                if said is error:
                    raise
                raise said from error

    def _say(self, error: Exception, failures: Failures) -> UserError:
        """Say what ends the run on console, log and events, if that is this rank's part; what is to be raised for it.

        What a user can mend comes to the console when the command ends.
        """
        rank, host, log = self.grid.rank, socket.gethostname(), self.directory.rank_log(self.grid.rank)
        user_error = error if isinstance(error, UserError) else None
        verdict = failures.settle_user_error(user_error) if user_error else failures.settle(error)
        if verdict is not Verdict.QUIET:
            self.events.write("failure", rank=rank, host=host, error=f"{type(error).__name__}: {error}")
        if user_error is not None:
            self.logger.error("%s", error, extra=FILE_ONLY)
            return user_error
        if verdict is Verdict.SAY:
            self.logger.error("rank %d on %s failed; log: %s", rank, host, log, exc_info=error)
            return FailedHere(described(error))
        self.logger.error("this rank ends, because another one has", exc_info=error, extra=FILE_ONLY)
        if verdict is Verdict.QUIET:
            return failures.cause or FailedElsewhere("another rank has failed")
        self.logger.error(
            "rank %d on %s lost the connection to a rank that has ended without a word, as if it was killed; log: %s",
            rank,
            host,
            log,
        )
        return FailedHere(described(error))

    def _tell_stop(self, stop: StopRequested) -> None:
        self.logger.info("stopping before the first step: %s; nothing is lost", stop)
        self.events.write("stop", reason=str(stop))
        self.events.write("end", exit_code=EXIT_STOPPED)

    def signal_on_any_rank(self) -> bool:
        """Whether a signal asks the run to stop, the same answer on all ranks; collective."""
        return bool(self.max_over_ranks(int(self.signals.received is not None)))

    @property
    def signal_reason(self) -> str:
        """Why a run stops that a signal asks to."""
        return f"signal {self.signals.received or 'on another rank'}"

    def stop_if_asked(self) -> None:
        """End a run that has not begun its first step if a signal came; collective.

        Raises:
            StopRequested: on all ranks.
        """
        if self.signal_on_any_rank():
            raise StopRequested(self.signal_reason)

    def record(self) -> None:
        """Write ``config.yaml`` and ``environment.json`` once the run is known to be sound; collective."""
        if self.grid.rank == 0:
            atomic_write_bytes(self.directory.config, self.config.to_yaml().encode())
        record_environment(self.directory.environment, self.grid, self.platform)

    def sum_over_ranks(self, values: torch.Tensor) -> list[float]:
        """Sum a few numbers over all ranks, in place; collective, and waits for the device.

        Args:
            values: fp64 on the device.
        """
        dist.all_reduce(values)
        return self.platform.fetch(values)

    def max_over_ranks(self, value: int) -> int:
        """The largest of the ranks' values; collective."""
        tensor = torch.tensor([value], dtype=torch.int64, device=self.platform.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor.item())
