"""Compares the bits of weights between ranks that hold the same ones, and mends what memory or a network has spoilt."""

from __future__ import annotations

import socket
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from torch import Tensor
from torch.nn import Parameter

from megatron_salamandra.model import unwrap
from megatron_salamandra.optim import weights_unlike_masters
from megatron_salamandra.parallel import bit_sums, named_global_parameters
from megatron_salamandra.training.callbacks.base import Callback
from megatron_salamandra.training.callbacks.checkpointing import is_due
from megatron_salamandra.training.callbacks.guard import Guard
from megatron_salamandra.training.decision import Action, Decision
from megatron_salamandra.training.errors import TrainingError
from megatron_salamandra.training.report import Measurement, StepReport
from megatron_salamandra.training.runtime import Runtime
from megatron_salamandra.training.twin_differences import (
    Difference,
    TwinReport,
    find_differences,
    in_words,
)
from megatron_salamandra.weights import TensorSplit, weight_of

_KIND = "twins"
_Key = tuple[str, str]


class Twins(Callback):
    """Looks at weights every ``guard.twins_every`` steps, and before each save.

    Twins are the data-parallel ranks, and for norms, which tensor parallelism does not split, the tensor-parallel ranks
    too. Moments and fp32 masters are sharded over the data-parallel ranks and have none; of masters it is looked
    whether the weights are still their rounding.

    It looks twice in such a step: when gradients are ready, so that none of other weights is applied, and at its end,
    so that no other weights are saved. A stop that is asked for later, while the step is validated, is saved without
    another look. All ranks see the same reports, so that they decide alike.
    """

    part = "guard"

    def __init__(
        self,
        guard: Guard,
        runtime: Runtime,
        chunks: list[DistributedDataParallel],
        optimizer: MegatronOptimizer,
    ) -> None:
        """Take what the run's view does not have.

        Args:
            guard: has the budget, and writes incidents.
        """
        every = runtime.config.guard.twins_every
        assert every is not None
        self._every = every
        self._guard, self._runtime = guard, runtime
        self._chunks, self._optimizer = chunks, optimizer
        self._weights = {
            _key(name, runtime): parameter
            for chunk in chunks
            for name, parameter in named_global_parameters(unwrap(chunk))
        }
        self._names = {id(parameter): key for key, parameter in self._weights.items()}
        everywhere = [weight_of(name).split is TensorSplit.WHOLE for _, name in self._weights]
        self._unsplit = torch.tensor(everywhere, dtype=torch.bool, device=runtime.platform.device)

    def before_decision(self, measured: Measurement) -> Decision:
        """Have the gradients computed again if they were those of other weights."""
        return Decision.apply() if measured.step % self._every else self._check(measured)

    def after_step(self, report: StepReport) -> None:
        if report.step % self._every and not self._is_saved(report):
            return
        for chunk in self._chunks:
            if chunk.ddp_config.overlap_param_gather:
                chunk.start_param_sync(force_sync=True)  # else it happens in the next forward pass
        decision = self._check(report)
        if decision.action is Action.ROLL_BACK:
            self.run.request_roll_back(decision)

    def _is_saved(self, report: StepReport) -> bool:
        policy, run = self.run.config.checkpoint, self.run
        last = policy.at_end and report.step == run.config.total_steps
        return is_due(policy, report) or run.stop_reason is not None or last

    def _check(self, measured: Measurement | StepReport) -> Decision:
        """Compare, and mend what differs: apply if nothing does, repeat if it is mended, roll back if it cannot be.

        Raises:
            TrainingError: there is no checkpoint to go back to, or the guard's budget is spent.
        """
        spoilt = [self._names[id(parameter)] for parameter in weights_unlike_masters(self._optimizer)]
        sums = bit_sums(list(self._weights.values()), self._runtime.platform.device)
        differ = self._differ(sums) or bool(spoilt)
        if not self._runtime.max_over_ranks(int(differ)):
            return Decision.apply()
        host = socket.gethostname()
        mine = TwinReport(self.run.rank, host, dict(zip(self._weights, sums.tolist(), strict=True)))
        found: list[Any] = [None] * self.run.world_size
        dist.all_gather_object(found, (mine, spoilt))
        reports = [report for report, _ in found]
        differences = find_differences(reports)
        unlike = [(report, keys) for report, keys in found if keys and not differences]
        reason = in_words(differences, reports) if differences else _unlike_in_words(unlike)
        mendable = bool(differences) and all(one.source is not None for one in differences)
        if not self._guard.has_budget(measured.step):
            self._fail(measured, f"{reason}; {self._guard.budget_is_spent()}")
        if not (mendable or self._guard.has_checkpoint):
            self._fail(measured, f"{reason}; there is no checkpoint to go back to yet")
        self._guard.spend(measured.step)
        action = "restore" if mendable else "roll_back"
        self._guard.record(measured, _KIND, action, reason, contents=False)
        if not mendable:
            return Decision.roll_back(reason, by_chance=True)
        self._mend(differences)
        return Decision.repeat(reason)

    def _differ(self, sums: Tensor) -> bool:
        """Whether a weight of this rank differs from one of its twins; collective."""
        grid = self._runtime.grid
        differ = torch.zeros((), dtype=torch.bool, device=sums.device)
        for group, size, mine in (
            (parallel_state.get_data_parallel_group(), grid.data_size, sums),
            (parallel_state.get_tensor_model_parallel_group(), grid.tensor_size, sums[self._unsplit]),
        ):
            if size > 1 and mine.numel():
                # The greatest of the complements is the complement of the least.
                extremes = torch.cat([mine, ~mine])
                dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=group)
                differ |= (extremes[: len(mine)] != ~extremes[len(mine) :]).any()
        return bool(differ)

    def _mend(self, differences: list[Difference]) -> None:
        """Copy weights from ranks that have the right ones; every rank knows who sends what to whom."""
        rank = self.run.rank
        for one in differences:
            assert one.source is not None
            for odd in one.odd:
                if rank == one.source:
                    dist.send(self._data(one), odd)
                elif rank == odd:
                    dist.recv(self._data(one), one.source)

    def _data(self, one: Difference) -> Tensor:
        parameter: Parameter = self._weights[one.part, one.name]
        return parameter.detach()

    def _fail(self, measured: Measurement | StepReport, reason: str) -> None:
        self._guard.record(measured, _KIND, "fail", reason, contents=False)
        raise TrainingError(
            f"weights at step {measured.step} are not what they should be: {reason}\n"
            "  have the memory of that host checked, and start the run again without it"
        )


def compare_twins(
    guard: Guard, runtime: Runtime, chunks: list[DistributedDataParallel], optimizer: MegatronOptimizer
) -> Twins | None:
    """The callback, where the configuration wants it and a weight is on more than one rank."""
    wanted = runtime.config.guard.twins_every is not None
    has_twins = runtime.grid.world_size > runtime.grid.pipeline_size
    return Twins(guard, runtime, chunks, optimizer) if wanted and has_twins else None


def _key(name: str, runtime: Runtime) -> _Key:
    """Ranks that have the same one hold the same numbers."""
    grid, words = runtime.grid, []
    if grid.pipeline_size > 1:
        words.append(f"pipeline stage {grid.pipeline_rank}")
    if grid.tensor_size > 1 and weight_of(name).split is not TensorSplit.WHOLE:
        words.append(f"tensor rank {grid.tensor_rank}")
    return ", ".join(words), name


def _unlike_in_words(unlike: list[tuple[TwinReport, list[_Key]]]) -> str:
    told = [
        f"{keys[0][1]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''} on rank {report.rank} on {report.host} "
        "is not what its fp32 master gave"
        for report, keys in unlike
    ]
    return "; ".join(told[:3]) + (f"; {len(told) - 3} more ranks" if len(told) > 3 else "")
