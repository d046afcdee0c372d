"""What the training code may ask of the place it runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.exit_codes import EXIT_USAGE


class PlatformError(UserError):
    """The requested platform cannot be used here; the message names the remedy."""

    exit_code = EXIT_USAGE
    of_one_rank = True


class Platform(ABC):
    """One kind of place where ranks run."""

    name: str
    """``cuda`` or ``host``, as written in logs and ``environment.json``."""

    backend: str
    """Name of the ``torch.distributed`` backend."""

    @abstractmethod
    def start(self, local_rank: int) -> None:
        """Bind this process to its device and make Megatron-Core usable on it."""

    @abstractmethod
    def stop(self) -> None:
        """Undo :meth:`start`; idempotent."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device that holds this rank's parameters and activations."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all queued work of this rank is finished (needed before reading a clock)."""

    @abstractmethod
    def fetch(self, values: torch.Tensor) -> list[float]:
        """The numbers of a tensor on :attr:`device`, when all work before them is done.

        The one place where training waits for the device: once a step, for everything that is to be known of it.
        """

    @abstractmethod
    def staging(self, size: int) -> torch.Tensor:
        """Host memory that :meth:`begin_copy` can read without anybody waiting: uint8 [size]."""

    @abstractmethod
    def begin_copy(self, staged: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Copy what :meth:`staging` gave to the device, beside what it computes; does not wait.

        Returns:
            Gives the copy, for work that is queued after the call.
        """

    @abstractmethod
    def record_collectives(self, directory: Path) -> None:
        """Have the last collectives of every group recorded, and written below ``directory`` if one times out.

        To be called before ranks join; does nothing where the backend has no recorder.
        """

    @abstractmethod
    def write_collectives(self, path: Path) -> None:
        """Write what is recorded of the last collectives; nothing where there is no recorder.

        Raises:
            OSError: the file cannot be written.
        """

    @abstractmethod
    def mark(self) -> Any:
        """This point of the rank's work, to be measured from or to; costs no waiting."""

    @abstractmethod
    def seconds_between(self, first: Any, second: Any) -> float:
        """Time between two marks, of work that is finished (:meth:`synchronize`)."""

    @abstractmethod
    def peak_memory_bytes(self) -> int:
        """Largest amount of memory this rank has used so far."""

    @abstractmethod
    def peak_flops(self, precision: str) -> float | None:
        """Dense matrix-multiply peak of one device in FLOP/s, or None when it is not known."""

    @abstractmethod
    def description(self) -> str:
        """One line that names the hardware for logs."""
