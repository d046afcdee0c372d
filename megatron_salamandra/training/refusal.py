"""Who speaks for an error that a user can mend: rank 0, unless another rank finds it alone.

The ranks agree through the store of their process group, which needs no collective: some are still waiting in one.
"""

from __future__ import annotations

import contextlib
import socket
import time

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from megatron_salamandra.foundation.errors import UserError

RANK_0_SECONDS = 3.0
"""How much later than another rank rank 0 may find the same error."""

POLL_SECONDS = 0.05

_OF_RANK_0 = "salamandra/refused/0"
_ALONE = "salamandra/refused/alone"
_CLAIMS = "salamandra/refused/claims"


class RefusedElsewhere(UserError):
    """This rank failed because another one found an error and left; that one speaks."""

    said_elsewhere = True

    def __init__(self, text: str, exit_code: int) -> None:
        """Repeat what the other rank found, for this rank's report."""
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code


def settle_who_speaks(error: UserError, rank: int) -> bool:
    """Note in ``error`` whether this rank says it (``of_one_rank``) or another one does (``said_elsewhere``).

    Returns:
        Whether this rank says it.
    """
    if error.of_one_rank or error.said_elsewhere:
        return error.of_one_rank
    with contextlib.suppress(RuntimeError):  # the store ends with rank 0, which then has spoken
        store = _store()
        if rank == 0:
            store.set(_OF_RANK_0, _described(error, rank))
            error.said_elsewhere = store.check([_ALONE]) and _read(store, _ALONE).text.endswith(f": {error}")
            return not error.said_elsewhere
        error.said_elsewhere = True
        if not _comes(store, _OF_RANK_0) and store.add(_CLAIMS, 1) == 1:
            store.set(_ALONE, _described(error, rank))
            error.said_elsewhere, error.of_one_rank = False, True
    return error.of_one_rank or (rank == 0 and not error.said_elsewhere)


def refused_elsewhere() -> RefusedElsewhere | None:
    """The error that another rank found, if that is why this one fails."""
    with contextlib.suppress(RuntimeError):
        store = _store()
        for key in (_ALONE, _OF_RANK_0):
            if store.check([key]):
                return _read(store, key)
    return None


def _described(error: UserError, rank: int) -> str:
    return f"{error.exit_code}\nrank {rank} on {socket.gethostname()}: {error}"


def _read(store: Store, key: str) -> RefusedElsewhere:
    code, _, text = store.get(key).decode().partition("\n")
    return RefusedElsewhere(text, int(code))


def _comes(store: Store, key: str) -> bool:
    # Not by the store's own waiting, which fills the console when the time is up.
    deadline = time.monotonic() + RANK_0_SECONDS
    while not (there := bool(store.check([key]))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return there


def _store() -> Store:
    # Not public, but the one store that all ranks have, whichever launcher made it.
    return dist.distributed_c10d._get_default_store()
