"""Who speaks when ranks fail: each error is said once, by rank 0 if it finds it, else by a rank that does.

The other ranks fail as well, because they lose the connection, and have nothing to say. The ranks agree through the
store of their process group, which needs no collective: some are still waiting in one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_FAILURE

RANK_0_SECONDS = 3.0
"""How much later than another rank rank 0 may find the same error."""
LOOK_SECONDS = 1.0
"""How often a rank looks whether another one has failed."""
FAREWELL_SECONDS = 5.0
"""How long rank 0, which keeps the store, waits until the others know why they will fail."""
MOST_ERRORS = 8
"""So many different errors are said at most: where storage fails, each of a thousand ranks has one of its own."""
POLL_SECONDS = 0.05

_FIRST = "salamandra/failed/first"
_SAID = "salamandra/failed/said"
_NOTICED = "salamandra/failed/noticed"
_CONNECTION = re.compile(
    r"gloo|NCCL|connection (was )?(closed|reset|refused)|broken pipe|recvValue", re.IGNORECASE
)


class Verdict(Enum):
    """What a rank that fails has to do with its error."""

    SAY = auto()
    """Say it: no other rank does."""
    SAY_LOSS = auto()
    """Say that a rank has gone without a word, as one that was killed does."""
    QUIET = auto()
    """Nothing: another rank says it, or says what this one's error is a consequence of."""


class FailedElsewhere(UserError):
    """This rank failed because another one did; that one speaks."""

    said = True

    def __init__(self, text: str, exit_code: int = EXIT_FAILURE) -> None:
        """Repeat what the other rank said, for this rank's report."""
        super().__init__(text)
        self.exit_code = exit_code


class FailedHere(UserError):
    """An error that only a developer can mend; it has been said, with its traceback."""

    said = True


def described(error: Exception) -> str:
    """An error in words: a user's error as it is, others with their type."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def is_lost_connection(error: Exception) -> bool:
    """Whether a rank fails because it no longer reaches another one."""
    if isinstance(error, UserError):
        return False
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _CONNECTION.search(str(error)) is not None
    )


class Failures:
    """The errors that end a run, as one of its ranks sees them.

    A thread looks into the store once a second, so that every rank knows why the run ends before it loses the store,
    which ends with rank 0.

    Args:
        rank, local_rank, world_size: of this rank.
        store: that all ranks have.
    """

    def __init__(self, rank: int, local_rank: int, world_size: int, store: Store) -> None:
        self._rank, self._local_rank, self._world_size, self._store = rank, local_rank, world_size, store
        self._cause: FailedElsewhere | None = None
        self._has_failed = self._store_is_gone = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="failures", daemon=True)

    @classmethod
    @contextlib.contextmanager
    def of_joined_ranks(cls, rank: int, local_rank: int, world_size: int) -> Iterator[Failures]:
        """While the process group is there."""
        # Not public, but the one store that all ranks have, whichever launcher made it.
        failures = cls(rank, local_rank, world_size, dist.distributed_c10d._get_default_store())
        if world_size > 1:
            failures._thread.start()
        try:
            yield failures
        finally:
            failures._leave()

    @property
    def cause(self) -> FailedElsewhere | None:
        """What a rank has said of its failure; None if nothing is known of one."""
        if self._cause is None and not self._store_is_gone:
            try:
                if self._store.check([_FIRST]):
                    code, _, text = self._store.get(_FIRST).decode().partition("\n")
                    self._cause = FailedElsewhere(text, int(code))
            except RuntimeError:
                self._store_is_gone = True
        return self._cause

    def settle(self, error: Exception) -> Verdict:
        """Decide, with the other ranks, whether this one says its error; takes seconds, and is not collective."""
        self._has_failed = True
        if is_lost_connection(error) and self.cause is not None:
            return Verdict.QUIET
        try:
            return self._agree(error)
        except RuntimeError:  # the store has gone with rank 0
            if not is_lost_connection(error):
                return Verdict.SAY
            # Nobody can be asked, so one rank of each host speaks.
            return Verdict.SAY_LOSS if self._local_rank == 0 or self._rank == 1 else Verdict.QUIET

    def settle_user_error(self, error: UserError) -> Verdict:
        """As :meth:`settle`; the error then knows who says it, which the end of the command heeds."""
        if error.of_one_rank or error.said:
            self._has_failed = True
            return Verdict.QUIET if error.said else Verdict.SAY
        verdict = self.settle(error)
        error.said = verdict is Verdict.QUIET
        error.of_one_rank = not error.said and self._rank != 0
        return verdict

    def _agree(self, error: Exception) -> Verdict:
        if self._store_is_gone:
            raise RuntimeError("the store is gone")
        if is_lost_connection(error):
            first = self._say_first(error, "has lost the connection to a rank that ended without a word")
            return Verdict.SAY_LOSS if first else Verdict.QUIET
        text = described(error)
        said = f"{_SAID}/{hashlib.sha256(text.encode()).hexdigest()}"
        if self._rank != 0 and self._comes(f"{said}/0"):
            return Verdict.QUIET
        self._say_first(error, text)
        if self._rank == 0:
            self._store.set(f"{said}/0", "")
        if self._store.add(said, 1) > 1 or self._store.add(_SAID, 1) > MOST_ERRORS:
            return Verdict.QUIET
        return Verdict.SAY

    def _say_first(self, error: Exception, text: str) -> bool:
        """Leave the reason for ranks that fail by consequence; whether no other rank had one before."""
        code = error.exit_code if isinstance(error, UserError) else EXIT_FAILURE
        mine = f"{code}\nrank {self._rank} on {socket.gethostname()}: {text}"
        return bool(self._store.compare_set(_FIRST, "", mine).decode() == mine)

    def _comes(self, key: str) -> bool:
        # Not by the store's own waiting, which fills the console when the time is up.
        deadline = time.monotonic() + RANK_0_SECONDS
        while not (there := bool(self._store.check([key]))) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return there

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS) and not self._store_is_gone:
            if self.cause is not None:
                self._take_notice()
                return

    def _take_notice(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(f"{_NOTICED}/{self._rank}", "")

    def _leave(self) -> None:
        """End looking. After a failure rank 0 stays until the others know of it, for a while."""
        self._ended.set()
        if self._has_failed and not self._store_is_gone:
            self._take_notice()
            with contextlib.suppress(RuntimeError):
                noticed = [f"{_NOTICED}/{rank}" for rank in range(self._world_size)]
                deadline = time.monotonic() + FAREWELL_SECONDS
                while self._rank == 0 and not self._store.check(noticed) and time.monotonic() < deadline:
                    time.sleep(POLL_SECONDS)
        if self._thread.is_alive():
            self._thread.join(LOOK_SECONDS)
