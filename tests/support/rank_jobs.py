"""Jobs for the rank pool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALL_CONFIG = Path(__file__).with_name("small.yaml")


def train(overrides: Sequence[str]) -> int:
    """Train the small model on this rank and return the exit code."""
    return train_as_told([str(SMALL_CONFIG), *overrides])


def train_as_told(arguments: Sequence[str]) -> int:
    """Train on this rank with a configuration of its own; returns the exit code."""
    from megatron_salamandra.train import main

    return main(list(arguments))


def train_without_importing(module: str, overrides: Sequence[str]) -> int:
    """Like :func:`train`; 99 if the module was imported."""
    import sys

    sys.modules.pop(module, None)
    code = train(overrides)
    return 99 if module in sys.modules else code


def train_on_a_full_disk(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but syncing a file of tensors fails as it does when the disk is full."""
    import errno
    from unittest import mock

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".distcp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    # Checkpoint writers are forked from this process and inherit the fault.
    with mock.patch("os.fsync", fsync):
        return train(overrides)


def train_with_a_failing_disk(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but the disk of rank 1 fails when its first file of tensors is synced."""
    import errno
    from pathlib import Path
    from unittest import mock

    real_fsync = os.fsync
    if os.environ["RANK"] != "1":
        return train(overrides)

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name.startswith("__1_") and "step-00000002" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    with mock.patch("os.fsync", fsync):
        return train(overrides)


def train_on_nodes(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but each rank has a local disk of its own, as if it were alone on its node."""
    from unittest import mock

    from megatron_salamandra.checkpoint import LocalCopies

    initialize, rank = LocalCopies.__init__, os.environ["RANK"]

    def alone(self: LocalCopies, local_dir: Path, run: Path, keep: int, local_rank: int) -> None:
        initialize(self, local_dir / f"node-{rank}", run, keep, 0)

    with mock.patch.object(LocalCopies, "__init__", alone):
        return train(overrides)


def train_with_little_room(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but no file can grow beyond 12 kB."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        return train(overrides)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train_until_nan(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but the loss of step 3 is not a number."""
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Trainer, TrainerParts
    from megatron_salamandra.training.forward_backward import LossSum, run_micro_batches

    calls: list[Any] = []

    def spoilt(*arguments: Any) -> LossSum:
        calls.append(arguments)
        loss = run_micro_batches(*arguments)
        return LossSum(loss.nats * float("nan"), loss.tokens) if len(calls) == 3 else loss

    parts = TrainerParts(forward_backward=spoilt)
    return main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))


def train_with_a_slow_rank(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but the last rank sleeps in every forward pass."""
    import time

    from megatron_salamandra.train import main
    from megatron_salamandra.training import Trainer, TrainerParts
    from megatron_salamandra.training.forward_backward import LossSum, run_micro_batches

    def slow(*arguments: Any) -> LossSum:
        if os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1):
            time.sleep(0.5)
        return run_micro_batches(*arguments)

    parts = TrainerParts(forward_backward=slow)
    return main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))


def train_with_a_rank_that_stays_away(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but rank 1 comes to step 1 more than the short time-out late, and to step 5 when rank 0 has
    said that something hangs.
    """
    import time

    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, StepReport, Trainer, TrainerParts

    class StaysAway(Callback):
        def start(self) -> None:
            if self.run.rank == 1:
                time.sleep(8.0)

        def after_step(self, report: StepReport) -> None:
            if self.run.rank == 1 and report.step == 4:
                self.stay_away()

        def stay_away(self) -> None:
            deadline = time.monotonic() + 500
            events = self.run.directory.events
            while '"hang"' not in events.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)

    parts = TrainerParts(callbacks=[StaysAway()])
    return main([str(SMALL_CONFIG), *overrides], lambda runtime: Trainer.build(runtime, parts))


def train_with_flips(overrides: Sequence[str], flips: Sequence[tuple[int, int, str, str, int]]) -> int:
    """Like :func:`train`, but bits of weights or fp32 masters flip in the memory of ranks, each once.

    Args:
        flips: rank, step, when (``after`` it, ``inside`` it before its forward pass, or ``master``: inside it, of the
            fp32 master), name of the weight, and bit.
    """
    import torch

    from megatron_salamandra.model import unwrap
    from megatron_salamandra.parallel import named_global_parameters
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Callback, Runtime, StepReport, Trainer, TrainerParts
    from megatron_salamandra.training.forward_backward import LossSum, run_micro_batches

    left = list(flips)
    made: list[Trainer] = []

    def flip(step: int, whens: Sequence[str]) -> None:
        for one in [one for one in left if one[1] == step and one[2] in whens]:
            left.remove(one)
            rank, _, when, name, bit = one
            if os.environ["RANK"] != str(rank):
                continue
            for chunk in made[0].chunks:
                weight = dict(named_global_parameters(unwrap(chunk)))[name]
                data = weight.detach()
                if when == "master":
                    (part,) = [
                        p for p in made[0].optimizer.chained_optimizers if weight in p.model_param_gbuf_map
                    ]
                    pairs = zip(part.model_float16_groups, part.shard_fp32_from_float16_groups, strict=True)
                    (data,) = [m for ps, ms in pairs for p, m in zip(ps, ms, strict=True) if p is weight]
                words = data.view(-1).view(torch.int32 if data.element_size() == 4 else torch.int16)
                words[3] ^= 1 << bit

    class Flips(Callback):
        def after_step(self, report: StepReport) -> None:
            flip(report.step, ["after"])

    def spoilt(*arguments: Any) -> LossSum:
        flip(made[0].step + 1, ["inside", "master"])
        return run_micro_batches(*arguments)

    def build(runtime: Runtime) -> Trainer:
        made.append(Trainer.build(runtime, TrainerParts(forward_backward=spoilt, callbacks=[Flips()])))
        return made[0]

    return main([str(SMALL_CONFIG), *overrides], build)


def train_by_a_clock(overrides: Sequence[str]) -> int:
    """Like :func:`train`, but no time passes except 1 s per step for waiting for batches, 10 s for clearing gradients
    and 100 s for forward and backward.
    """
    from megatron_salamandra.data import StepLoader
    from megatron_salamandra.train import main
    from megatron_salamandra.training import Runtime, Trainer, TrainerParts
    from megatron_salamandra.training.forward_backward import run_micro_batches

    clock = [0.0]

    def slow(real: Any, seconds: float) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            clock[0] += seconds
            return real(*arguments, **options)

        return call

    class SlowLoader(StepLoader):
        @property
        def is_ready(self) -> bool:
            return False  # so that nothing is read before it is wanted

        def next_step(self) -> Any:
            clock[0] += 1.0
            return super().next_step()

    def build(runtime: Runtime) -> Trainer:
        parts = TrainerParts(slow(run_micro_batches, 100.0), SlowLoader, lambda: clock[0])
        trainer = Trainer.build(runtime, parts)
        for chunk in trainer.chunks:
            chunk.zero_grad_buffer = slow(chunk.zero_grad_buffer, 10.0)
        return trainer

    return main([str(SMALL_CONFIG), *overrides], build)


def initial_weights(overrides: Sequence[str]) -> dict[tuple[str, int], list[list[float]]]:
    """Every matrix this rank holds, by global name and tensor rank, as rows."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks, unwrap
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.parallel.initialization import named_global_parameters
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            found = {}
            for chunk in build_model_chunks(config, grid, platform):
                for name, parameter in named_global_parameters(unwrap(chunk)):
                    found[name, grid.tensor_rank] = (
                        parameter.detach().float().reshape(len(parameter), -1).tolist()
                    )
            return found
    finally:
        platform.stop()


def preset_parameters(preset: str) -> int:
    """Number of parameters of a preset's model, built on the meta device with one rank."""
    import torch

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_chunk, transformer_config
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(preset, ["parallel.tensor=1", "parallel.pipeline=1", "parallel.sequence=false"])
    platform = select_platform("host")
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform), torch.device("meta"):
            chunk = build_chunk(config, transformer_config(config, platform_name=platform.name))
            return sum(parameter.numel() for parameter in chunk.parameters())
    finally:
        platform.stop()


def built_shapes(preset: str, overrides: Sequence[str]) -> list[dict[str, tuple[int, ...]]]:
    """Global parameter name -> shape on the first tensor-parallel rank of each pipeline rank.

    Models are built on the meta device, in process groups whose other ranks do not exist.
    """
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_chunk, transformer_config
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.parallel.initialization import named_global_parameters
    from megatron_salamandra.platform import select_platform

    config = load_run_config(preset, overrides)
    parallel = config.parallel
    platform = select_platform("host")
    platform.start(0)
    found = []
    try:
        for pipeline_rank in range(parallel.pipeline):
            dist.init_process_group(
                "fake",
                store=FakeStore(),
                rank=pipeline_rank * parallel.tensor,
                world_size=parallel.tensor * parallel.pipeline,
            )
            with start_process_grid(parallel, config.training.seed, platform) as grid, torch.device("meta"):
                transformer = transformer_config(config, platform_name=platform.name)
                stages = range(grid.model_chunks) if parallel.virtual_pipeline else [None]
                chunks = [build_chunk(config, transformer, stage) for stage in stages]
                found.append(
                    {
                        name: tuple(parameter.shape)
                        for chunk in chunks
                        for name, parameter in named_global_parameters(chunk)
                    }
                )
            dist.destroy_process_group()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        platform.stop()
    return found


def logits_of_model_and_page(overrides: Sequence[str]) -> tuple[Any, Any]:
    """Logits of the freshly initialised small model, and those of the forward pass written out in model/spec.py."""
    import torch

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks, model_forward, unwrap
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            (chunk,) = build_model_chunks(config, grid, platform)
            model = unwrap(chunk)
            generator = torch.Generator().manual_seed(7)
            tokens = torch.randint(0, config.model.vocab_size, (2, 48), generator=generator)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "norm" in name:  # away from 1, so that each norm counts
                        parameter.uniform_(0.5, 1.5, generator=generator)
                built = model(tokens, torch.arange(48).expand(2, 48), None)
                written = model_forward(tokens, dict(model.named_parameters()), config.model)
            return built.float().numpy().copy(), written.float().numpy().copy()
    finally:
        platform.stop()


def decay_groups(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the parameters that weight decay applies to, and of those it spares."""
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.model import build_model_chunks, unwrap
    from megatron_salamandra.optim import apply_schedule, build_optimizer
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    platform = select_platform("host")
    platform.start(0)
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            optimizer = build_optimizer(config, chunks, platform)
            apply_schedule(optimizer, config, 1)
            decay = {
                size: group["weight_decay"]
                for group in optimizer.param_groups
                for size in {parameter.numel() for parameter in group["params"]}
            }
            names = [(name, p.numel()) for name, p in unwrap(chunks[0]).named_parameters()]
            return [n for n, size in names if decay[size]], [n for n, size in names if not decay[size]]
    finally:
        platform.stop()


def loss_and_gradients(overrides: Sequence[str]) -> dict[str, Any]:
    """One pass over two micro-batches, the second one padded: this rank's loss, gradients and checkpoint keys.

    ``gradients`` maps global parameter names to arrays, means over the valid tokens; ``state`` maps checkpoint
    keys to global shapes.
    """
    import numpy as np
    import torch
    from megatron.core.distributed import finalize_model_grads

    from megatron_salamandra.checkpoint.contents import sharded_state
    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.data.micro_batch import micro_batch
    from megatron_salamandra.model import build_model_chunks, unwrap
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.parallel.initialization import named_global_parameters
    from megatron_salamandra.platform import select_platform
    from megatron_salamandra.training.forward_backward import run_micro_batches

    config = load_run_config(str(SMALL_CONFIG), overrides)
    windows = np.random.default_rng(5).integers(
        0, config.model.vocab_size, (2, config.data.sequence_length + 1)
    )
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            for chunk in chunks:
                chunk.config.finalize_model_grads_func = finalize_model_grads
            batches = [
                micro_batch(windows[:1], np.array([config.data.sequence_length])),
                micro_batch(windows[1:], np.array([config.data.sequence_length // 3])),
            ]
            for chunk in chunks:
                chunk.zero_grad_buffer()
            loss = run_micro_batches(chunks, batches, config, grid)
            with torch.no_grad():
                validation = run_micro_batches(
                    [chunk.eval() for chunk in chunks], batches, config, grid, forward_only=True
                )
            return {
                "loss": float(loss.nats),
                "validation": float(validation.nats),
                "gradients": {
                    name: parameter.main_grad.float().numpy().copy()
                    for chunk in chunks
                    for name, parameter in named_global_parameters(unwrap(chunk))
                },
                "state": {
                    key: tuple(getattr(tensor, "global_shape", ()))
                    for chunk in sharded_state(chunks, None, loading=False).values()
                    for key, tensor in chunk.items()
                },
            }
    finally:
        platform.stop()


def token_losses(overrides: Sequence[str], windows: Any, eod_id: int) -> Any:
    """Loss of every prediction, [windows, sequence], of the freshly initialised small model on one rank."""
    import torch

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.data import DocumentRules
    from megatron_salamandra.data.micro_batch import micro_batch
    from megatron_salamandra.model import build_model_chunks
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform

    config = load_run_config(str(SMALL_CONFIG), overrides)
    rules = DocumentRules(eod_id, config.data.document_masking, config.data.reset_positions)
    batch = micro_batch(windows, documents=rules)
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            (model,) = build_model_chunks(config, grid, platform)
            with torch.no_grad():
                losses = model(batch.tokens, batch.position_ids, batch.document_bounds, labels=batch.labels)
            return losses.numpy().copy()
    finally:
        platform.stop()


def changed_batch_tensors(overrides: Sequence[str], samples: int) -> list[str]:
    """Names of a micro-batch's tensors that a forward, backward and validation pass changed."""
    import numpy as np
    import torch
    from megatron.core.distributed import finalize_model_grads

    from megatron_salamandra.config import load_run_config
    from megatron_salamandra.data.micro_batch import micro_batch
    from megatron_salamandra.model import build_model_chunks
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform import select_platform
    from megatron_salamandra.training.forward_backward import run_micro_batches

    config = load_run_config(str(SMALL_CONFIG), overrides)
    shape = (samples, config.data.sequence_length + 1)
    batch = micro_batch(np.random.default_rng(5).integers(0, config.model.vocab_size, shape))
    before = {name: tensor.clone() for name, tensor in vars(batch).items() if tensor is not None}
    platform = select_platform("host")
    platform.start(int(os.environ["LOCAL_RANK"]))
    try:
        with start_process_grid(config.parallel, config.training.seed, platform) as grid:
            chunks = build_model_chunks(config, grid, platform)
            for chunk in chunks:
                chunk.config.finalize_model_grads_func = finalize_model_grads
                chunk.zero_grad_buffer()
            run_micro_batches(chunks, [batch], config, grid)
            with torch.no_grad():
                run_micro_batches(
                    [chunk.eval() for chunk in chunks], [batch], config, grid, forward_only=True
                )
    finally:
        platform.stop()
    return [name for name, tensor in before.items() if not torch.equal(getattr(batch, name), tensor)]


def groups_in_a_large_world(world_size: int, tensor: int, pipeline: int) -> tuple[int, int, bool]:
    """Make the process groups of one rank of a world whose other ranks do not exist.

    Returns:
        Groups that were made for all ranks, groups that this rank is in, and whether the world is bound to a device,
        so that NCCL would make each of them at once, together with the whole world.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from megatron_salamandra.config import ParallelSection
    from megatron_salamandra.parallel import start_process_grid
    from megatron_salamandra.platform.host import HostPlatform

    class Device(HostPlatform):
        """Like CUDA, but for its devices and its backend."""

        name = "cuda"
        backend = "fake"

    made = 0
    init, new_group = dist.init_process_group, dist.new_group

    def init_alone(*, backend: str, **given: Any) -> None:
        init(backend, rank=0, world_size=world_size, store=FakeStore(), **given)

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal made
        made += 1
        return new_group(*given, **named)

    platform = Device()
    platform.start(0)
    dist.init_process_group, dist.new_group = init_alone, counted
    try:
        with start_process_grid(ParallelSection(tensor=tensor, pipeline=pipeline), 1, platform):
            bound = dist.group.WORLD.bound_device_id is not None
            return made, len(dist.distributed_c10d._world.pg_map), bound
    finally:
        dist.init_process_group, dist.new_group = init, new_group
        platform.stop()
