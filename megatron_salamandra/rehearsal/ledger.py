"""Which memory a rank holds when: every storage that torch gives out, its birth, its death, and what it is for.

Storages are watched by weak references, so that one counts until the last tensor over it is gone, whoever keeps that.
What an operation takes and gives back inside itself (workspaces of products and of attention) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_iter

from megatron_salamandra.rehearsal.modules import LOSS, OUTPUT_LAYER, ModuleTrail, Where
from megatron_salamandra.rehearsal.results import Category, MemoryPeak


@dataclass(slots=True)
class _Allocation:
    """One storage.

    Attributes:
        born, died: by the ledger's clock, which counts births and deaths.
        where: what the rank was in when it was made.
        received: from another pipeline stage.
        category: what it was said to be for; None where that follows from its life.
    """

    bytes: int
    born: int
    where: Where
    received: bool = False
    category: Category | None = None
    died: int | None = None

    def lives_at(self, clock: int) -> bool:
        return self.born <= clock and (self.died is None or self.died > clock)


@dataclass(frozen=True, slots=True)
class _Peak:
    bytes: int
    clock: int
    where: Where


class MemoryLedger:
    """Keeps account of storages: :meth:`see` is to be shown what every operation returns.

    Attributes:
        now_bytes: what is held at this moment.
    """

    def __init__(self, trail: ModuleTrail) -> None:
        self.now_bytes = 0
        self._trail = trail
        self._clock = 0
        self._living: dict[int, _Allocation] = {}
        self._references: dict[int, Any] = {}
        self._all: list[_Allocation] = []
        self._peaks: dict[str, _Peak] = {}
        self._call_ends: dict[int, int] = {}
        trail.when_call_ends(lambda number: self._call_ends.__setitem__(number, self._clock))

    def see(self, outputs: Any) -> None:
        """Take what an operation returned into the account; storages that are known are passed over."""
        for output in (outputs,) if isinstance(outputs, Tensor) else tree_iter(outputs):
            if isinstance(output, Tensor):
                self._see(output)

    def _see(self, tensor: Tensor) -> _Allocation:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if (known := self._living.get(key)) is not None:
            return known
        self._clock += 1
        made = _Allocation(storage.nbytes(), self._clock, self._trail.where())
        self._living[key] = made
        self._all.append(made)
        self._references[key] = weakref.ref(storage, self._end_of(key))
        self.now_bytes += made.bytes
        peak = self._peaks.get(made.where.phase)
        if peak is None or self.now_bytes > peak.bytes:
            self._peaks[made.where.phase] = _Peak(self.now_bytes, self._clock, made.where)
        return made

    def _end_of(self, key: int) -> Callable[[object], None]:
        def end(_: object) -> None:
            gone = self._living.pop(key)
            del self._references[key]
            self._clock += 1
            gone.died = self._clock
            self.now_bytes -= gone.bytes

        return end

    def receive(self, tensors: Iterable[Tensor]) -> None:
        """Take note that tensors come from another pipeline stage."""
        for tensor in tensors:
            self._see(tensor).received = True

    def label(self, tensors: Iterable[Tensor], category: Category) -> None:
        """Say what tensors are for; they may have been made before the ledger was there."""
        for tensor in tensors:
            self._see(tensor).category = category

    def label_rest(self, category: Category) -> None:
        """Say what all storages are for that live now and of which nothing was said yet."""
        for living in self._living.values():
            living.category = living.category or category

    def forget_peaks(self) -> None:
        """Begin new peaks: what is built up once must not hide what each step takes."""
        self._peaks.clear()

    def peaks(self) -> tuple[MemoryPeak, ...]:
        """The peak of every phase since the last :meth:`forget_peaks`, in the order in which they were entered."""
        return tuple(self._described(peak) for peak in self._peaks.values())

    def _described(self, peak: _Peak) -> MemoryPeak:
        held = dict.fromkeys(Category, 0)
        for allocation in self._all:
            if allocation.lives_at(peak.clock):
                held[self._category(allocation)] += allocation.bytes
        return MemoryPeak(
            phase=peak.where.phase,
            detail=peak.where.detail,
            module=self._trail.module_of(peak.where),
            weights_bytes=held[Category.WEIGHTS],
            gradients_bytes=held[Category.GRADIENTS],
            optimizer_bytes=held[Category.OPTIMIZER],
            activations_bytes=held[Category.ACTIVATIONS],
            logits_bytes=held[Category.LOGITS],
            temporary_bytes=held[Category.TEMPORARY],
        )

    def _category(self, allocation: _Allocation) -> Category:
        if allocation.category is not None:
            return allocation.category
        if self._trail.module_of(allocation.where) in (OUTPUT_LAYER, LOSS):
            return Category.LOGITS
        end = self._call_ends.get(allocation.where.call)
        if allocation.received:  # a stage's input is kept until backward, the gradient of its output is not
            ends = self._call_ends.values()
            end = next((clock for clock in ends if clock > allocation.born), None)
        if end is not None and (allocation.died is None or allocation.died > end):
            return Category.ACTIVATIONS
        return Category.TEMPORARY
