"""Sees every operation of a rank on its way through torch: what it returns, and what it tells other ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._C._distributed_c10d import FakeWork
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_salamandra.rehearsal.calls import CallBook
from megatron_salamandra.rehearsal.ledger import MemoryLedger

_COMMUNICATION = "c10d"
RECEIVING = {torch.ops.c10d.recv_.default, torch.ops.c10d.recv_any_source_.default}


class Recorder(TorchDispatchMode):
    """Shows the ledger all tensors that are made, and the book all collectives and messages.

    Args:
        answered: True where no other rank is there, so that a collective returns at once with what it was given.
    """

    def __init__(self, ledger: MemoryLedger, book: CallBook, *, answered: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger
        self._book = book
        self._answered = answered

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.namespace == _COMMUNICATION:
            self._book.note(func, args)
            if func in RECEIVING:
                self._ledger.receive(args[0])
            if self._answered:
                return _answer(func, args)
            return func(*args, **(kwargs or {}))
        outputs = func(*args, **(kwargs or {}))
        self._ledger.see(outputs)
        return outputs


def _answer(func: Any, args: Sequence[Any]) -> Any:
    """What a collective returns at once: the tensors it was given first where it returns tensors, and its work."""
    returned = len(func._schema.returns)
    if returned == 0:
        return None
    done = FakeWork().boxed()
    return done if returned == 1 else (args[0], done)
