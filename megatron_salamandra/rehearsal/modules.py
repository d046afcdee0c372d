"""In which module of the model the rank is, forward and backward, without a change to the model.

Forward it is the innermost module whose ``forward`` runs. Backward it is the module that made the autograd node which
runs: nodes are numbered in the order in which they are made, so a call of a module is a span of numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from megatron_salamandra.hangs import PROGRESS, Part

OUTPUT_LAYER = "output_layer"
LOSS = "loss"
"""What follows the output layer in the model's own forward."""
_WRAPPER = "module"
"""How wrappers (data parallelism, conversion to bf16) call what is in them."""


@dataclass(frozen=True, slots=True)
class Where:
    """What the rank was in.

    Attributes:
        phase: such as ``forward``, ``backward``, ``update``.
        detail: such as the micro-batch.
        module: name of the module in whose forward pass it was, or "".
        node: number of the autograd node that ran; -1 if none did.
        call: number of the outermost module's call that it was in; -1 if in none.
    """

    phase: str
    detail: str
    module: str
    node: int
    call: int


class ModuleTrail:
    """Follows modules while :meth:`following` lasts.

    Attributes:
        forward_passes: calls of whole model chunks that were begun.
    """

    def __init__(self) -> None:
        self.forward_passes = 0
        self._names: dict[int, str] = {}
        self._open: list[tuple[str, int]] = []
        self._spans: list[tuple[int, int, str]] = []
        self._span_ends: list[int] = []
        self._calls = 0
        self._when_call_ends: list[Callable[[int], None]] = []

    def when_call_ends(self, tell: Callable[[int], None]) -> None:
        """Have ``tell`` called with the number of each outermost call that ends."""
        self._when_call_ends.append(tell)

    def name_modules(self, chunks: Iterable[nn.Module]) -> None:
        """Learn how the modules of the rank's chunks are called; layers count over the whole model, from 0."""
        for chunk in chunks:
            for path, module in chunk.named_modules():
                names = path.split(".")
                while names and names[0] in ("", _WRAPPER):
                    del names[0]
                self._names[id(module)] = ".".join(names)
            for module in chunk.modules():
                number = getattr(module, "layer_number", None)
                own = self._names[id(module)]
                parent, _, local = own.rpartition(".")
                if isinstance(number, int) and local.isdecimal():
                    for part in module.modules():
                        rest = self._names[id(part)][len(own) :]
                        self._names[id(part)] = f"{parent}.{number - 1}{rest}"

    @contextmanager
    def following(self) -> Iterator[None]:
        """Watch all modules of this process."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if not self._open:
            self._calls += 1
            if torch._C._current_autograd_node() is None:
                self.forward_passes += 1
        name = self._names.get(id(module), type(module).__name__)
        self._open.append((name, torch._C._autograd._get_sequence_nr()))

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name, first = self._open.pop()
        last = torch._C._autograd._get_sequence_nr()
        self._spans.append((first, last, name))
        self._span_ends.append(last)
        if name == OUTPUT_LAYER and self._open:
            self._open[-1] = (LOSS, last)
        if not self._open:
            for tell in self._when_call_ends:
                tell(self._calls)

    def where(self) -> Where:
        """What the rank is in now."""
        node = torch._C._current_autograd_node()
        part, detail = PROGRESS.place.part, PROGRESS.place.detail
        if node is not None:
            part = Part.BACKWARD
        elif part is Part.BACKWARD:
            # On stages without the loss the schedule goes from backward to forward without a word.
            part = Part.FORWARD
        module = self._open[-1][0] if self._open else ""
        return Where(
            phase=part.value,
            detail=detail,
            module=module,
            node=-1 if node is None else node._sequence_nr(),
            call=self._calls if self._open else -1,
        )

    def module_of(self, where: Where) -> str:
        """Name of the module, such as ``decoder.layers.3.mlp.linear_fc1``; "" where it is none."""
        if where.module or where.node < 0:
            return where.module
        # Spans are in the order of their ends, and the innermost ends first.
        for first, _, name in self._spans[bisect_right(self._span_ends, where.node) :]:
            if first <= where.node:
                return name
        return ""
