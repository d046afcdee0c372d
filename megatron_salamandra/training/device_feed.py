"""Micro-batches on their way to the device: a step's in one copy, made while the step before it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_salamandra.data import MicroBatch, StepLoader
from megatron_salamandra.platform import Platform

_ALIGNMENT = 16
"""Bytes; of every tensor in the copy, as kernels read them."""


class DeviceFeed:
    """Hands out the micro-batches of each step on the device.

    The copy of the next step begins as soon as :meth:`look_ahead` finds it read, in a stream of its own and from pinned
    memory, so that neither the host nor the device waits for it.
    """

    def __init__(self, loader: StepLoader, platform: Platform) -> None:
        self._loader = loader
        self._platform = platform
        self._ahead: Callable[[], list[MicroBatch]] | None = None

    def next_step(self) -> list[MicroBatch]:
        """The micro-batches of the next step, in the order they are to be run.

        Raises:
            DataError, ValueError: see :meth:`StepLoader.next_step`.
        """
        arrived = self._ahead or _begin_copy(self._loader.next_step(), self._platform)
        self._ahead = None
        return arrived()

    def look_ahead(self) -> None:
        """Begin to copy the step after the one that was handed out, if it is read by now; never waits."""
        if self._ahead is None and self._loader.is_ready:
            self._ahead = _begin_copy(self._loader.next_step(), self._platform)


def on_device(batches: Sequence[MicroBatch], platform: Platform) -> list[MicroBatch]:
    """Micro-batches of which every tensor is on the device, in one copy."""
    return _begin_copy(batches, platform)()


def _begin_copy(batches: Sequence[MicroBatch], platform: Platform) -> Callable[[], list[MicroBatch]]:
    """Put what the batches hold behind one another and copy it; what several of them share goes once."""
    places: dict[int, int] = {}
    storages: list[torch.UntypedStorage] = []
    size = 0
    for tensor in _tensors(batches):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in places:
            places[storage.data_ptr()] = size
            storages.append(storage)
            size += -(-storage.nbytes() // _ALIGNMENT) * _ALIGNMENT
    staged = platform.staging(size)
    for storage in storages:
        start = places[storage.data_ptr()]
        staged[start : start + storage.nbytes()].copy_(torch.empty(0, dtype=torch.uint8).set_(storage))
    copied = platform.begin_copy(staged)

    def arrived() -> list[MicroBatch]:
        buffer = copied()

        def there(tensor: Any) -> Any:
            if tensor is None:
                return None
            start = places[tensor.untyped_storage().data_ptr()] // tensor.element_size()
            return buffer.view(tensor.dtype).as_strided(
                tensor.shape, tensor.stride(), start + tensor.storage_offset()
            )

        return [
            MicroBatch(
                **{field.name: there(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
            )
            for batch in batches
        ]

    return arrived


def _tensors(batches: Sequence[MicroBatch]) -> list[Tensor]:
    values = [getattr(batch, field.name) for batch in batches for field in dataclasses.fields(batch)]
    return [value for value in values if value is not None]
