"""Checks between keys: what no single field can know. Every refusal shows its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron_salamandra.config.errors import Problem
from megatron_salamandra.config.kernel_consistency import kernel_problems
from megatron_salamandra.config.layout import Layout
from megatron_salamandra.config.phase_consistency import phase_problems
from megatron_salamandra.config.pipeline_layout import parse_pipeline_layout

if TYPE_CHECKING:
    from megatron_salamandra.config.run_config import RunConfig
    from megatron_salamandra.config.sections import OptimizerSection


def find_problems(config: RunConfig) -> list[Problem]:
    """All contradictions that can be seen without knowing the world size."""
    problems = [*_model_problems(config)]
    if config.phases:
        return problems or phase_problems(config, _section_problems)
    problems += [*_length_problems(config)]
    if not problems:
        key = "training.steps" if config.training.tokens is None else "training.tokens"
        problems = [
            *schedule_problems(config.optimizer, config.total_steps, length_key=key),
            *_section_problems(config),
        ]
    return problems


def _section_problems(config: RunConfig) -> Iterator[Problem]:
    """What does not depend on the length of the run."""
    for check in (
        _optimizer_problems,
        _data_problems,
        kernel_problems,
        _tensor_problems,
        _pipeline_problems,
        _batch_problems,
    ):
        yield from check(config)


def fit_to_world(config: RunConfig, world_size: int) -> Layout | Problem:
    """The layout on ``world_size`` ranks, or why there is none."""
    tensor, pipeline = config.parallel.tensor, config.parallel.pipeline
    micro, batch = config.training.micro_batch_size, config.training.global_batch_size
    model_ranks = tensor * pipeline
    if world_size < 1 or world_size % model_ranks:
        return Problem(
            key="parallel.tensor",
            text=f"parallel.tensor = {tensor} times parallel.pipeline = {pipeline} needs a multiple of "
            f"{model_ranks} ranks, but there are {world_size}",
            remedy=_allowed("tensor * pipeline", _divisors(max(world_size, 1))),
            involved=("parallel.pipeline",),
        )
    data = world_size // model_ranks
    if batch % (micro * data):
        return Problem(
            key="training.global_batch_size",
            text=f"training.global_batch_size = {batch} samples does not divide by training.micro_batch_size = "
            f"{micro} times {data} data-parallel ranks (= {world_size} ranks / tensor {tensor} / pipeline "
            f"{pipeline}): {batch} = {batch // (micro * data)} * {micro * data} + {batch % (micro * data)}",
            remedy=_allowed_multiples("training.global_batch_size", micro * data, batch),
            involved=("training.micro_batch_size",),
        )
    micro_batches = batch // (micro * data)
    virtual = config.parallel.virtual_pipeline
    if virtual is not None and micro_batches % pipeline:
        return Problem(
            key="parallel.virtual_pipeline",
            text=f"parallel.virtual_pipeline = {virtual} needs micro-batches per step divisible by "
            f"parallel.pipeline = {pipeline}, but there are {micro_batches} (= {batch} samples / micro-batch "
            f"{micro} / {data} data-parallel ranks)",
            remedy=_allowed_multiples("training.global_batch_size", micro * data * pipeline, batch),
            involved=("parallel.pipeline", "training.global_batch_size"),
        )
    return Layout(world_size, tensor, pipeline, virtual, data, micro_batches)


def _model_problems(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    hidden, heads, groups = model.hidden_size, model.attention_heads, model.groups
    if hidden % heads:
        yield Problem(
            key="model.attention_heads",
            text=f"model.attention_heads = {heads} does not divide model.hidden_size = {hidden}",
            remedy=_allowed("model.attention_heads", _divisors(hidden)),
            involved=("model.hidden_size",),
        )
    elif model.head_dim % 2:
        yield Problem(
            key="model.attention_heads",
            text=f"model.attention_heads = {heads} gives a head dimension of {hidden} / {heads} = "
            f"{model.head_dim}, which is odd; rotary embeddings turn pairs of features",
            remedy=_allowed("model.attention_heads", [n for n in _divisors(hidden) if hidden // n % 2 == 0]),
            involved=("model.hidden_size",),
        )
    if heads % groups:
        yield Problem(
            key="model.query_groups",
            text=f"model.query_groups = {groups} does not divide model.attention_heads = {heads}",
            remedy=_allowed("model.query_groups", _divisors(heads)),
            involved=("model.attention_heads",),
        )


def _length_problems(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    if training.steps is None and training.tokens is None:
        yield Problem(
            key="training.steps",
            text="training.steps is missing: the run has no length",
            remedy="give exactly one of training.steps and training.tokens",
        )
    elif training.steps is not None and training.tokens is not None:
        yield Problem(
            key="training.tokens",
            text=f"training.tokens = {training.tokens} and training.steps = {training.steps} are both set",
            remedy="give exactly one of them; a later file or an override of one replaces the other",
            involved=("training.steps",),
        )


def schedule_problems(optimizer: OptimizerSection, total: int, *, length_key: str) -> Iterator[Problem]:
    """Contradictions in a schedule of ``total`` steps, whose length is set by ``length_key``."""
    if optimizer.min_lr > optimizer.lr:
        yield Problem(
            key="optimizer.min_lr",
            text=f"optimizer.min_lr = {optimizer.min_lr:g} is above the peak optimizer.lr = {optimizer.lr:g}",
            remedy=f"allowed: 0 to {optimizer.lr:g}",
            involved=("optimizer.lr",),
        )
    if optimizer.warmup_steps >= total:
        yield Problem(
            key="optimizer.warmup_steps",
            text=f"optimizer.warmup_steps = {optimizer.warmup_steps} is not below the {total} steps of the run, "
            "which would never reach its peak learning rate",
            remedy=f"allowed: 0 to {total - 1}, or a longer run",
            involved=(length_key,),
        )
    decay = optimizer.decay_steps
    if optimizer.schedule == "wsd":
        room = total - optimizer.warmup_steps
        if decay is None:
            yield Problem(
                key="optimizer.schedule",
                text="optimizer.schedule = wsd needs optimizer.decay_steps, the length of its final decay",
                remedy=f"allowed: 1 to {max(room, 1)} steps",
            )
        elif decay > room >= 1:
            yield Problem(
                key="optimizer.decay_steps",
                text=f"optimizer.decay_steps = {decay} plus optimizer.warmup_steps = {optimizer.warmup_steps} is "
                f"more than the {total} steps of the run",
                remedy=f"allowed: 1 to {room} steps",
                involved=("optimizer.warmup_steps",),
            )
    elif decay is not None:
        yield Problem(
            key="optimizer.decay_steps",
            text=f"optimizer.decay_steps = {decay} has no effect with optimizer.schedule = {optimizer.schedule}",
            remedy="set it to null, or use optimizer.schedule = wsd",
            involved=("optimizer.schedule",),
        )


def _optimizer_problems(config: RunConfig) -> Iterator[Problem]:
    optimizer = config.optimizer
    if optimizer.overlap_param_gather and not optimizer.overlap_grad_reduce:
        yield Problem(
            key="optimizer.overlap_param_gather",
            text="optimizer.overlap_param_gather = true needs optimizer.overlap_grad_reduce = true",
            remedy="set both to true, or overlap_param_gather to false",
            involved=("optimizer.overlap_grad_reduce",),
        )
    if optimizer.options and optimizer.name == "adamw":
        yield Problem(
            key="optimizer.options",
            text=f"optimizer.options = {optimizer.options}: adamw has none; its keys are beta1, beta2 and eps",
            remedy="leave options out, or name the optimizer that takes them in optimizer.name",
            involved=("optimizer.name",),
        )


def _data_problems(config: RunConfig) -> Iterator[Problem]:
    data, run_dir = config.data, config.run_dir
    if data.continue_from is None:
        if data.new_text:
            yield Problem(
                key="data.new_text",
                text=f"data.new_text = {', '.join(data.new_text)} has no effect without data.continue_from: every "
                "language starts at its first window",
                remedy="leave it out, or name the run that this one goes on from: data.continue_from=RUN_DIR",
                involved=("data.continue_from",),
            )
        return
    earlier = data.continue_from.resolve()
    if run_dir is not None and run_dir.resolve() in (earlier, *earlier.parents):
        yield Problem(
            key="data.continue_from",
            text=f"data.continue_from = {data.continue_from} is this run itself, or lies in it: run_dir = {run_dir}",
            remedy="to resume, leave data.continue_from as it was; a later phase needs a run_dir of its own",
            involved=("run_dir",),
        )


def _tensor_problems(config: RunConfig) -> Iterator[Problem]:
    model, tensor = config.model, config.parallel.tensor
    split_sizes = {
        "model.attention_heads": model.attention_heads,
        "model.query_groups": model.groups,
        "model.ffn_hidden_size": model.ffn_hidden_size,
        "model.vocab_size": model.vocab_size,
    }
    if config.parallel.sequence:
        split_sizes["data.sequence_length"] = config.data.sequence_length
    works = [n for n in _divisors(model.groups) if all(size % n == 0 for size in split_sizes.values())]
    for key, size in split_sizes.items():
        if size % tensor:
            yield Problem(
                key="parallel.tensor",
                text=f"parallel.tensor = {tensor} does not divide {key} = {size}",
                remedy=_allowed("parallel.tensor", works),
                involved=(key,),
            )
    if config.parallel.sequence and tensor == 1:
        yield Problem(
            key="parallel.sequence",
            text="parallel.sequence = true has no effect with parallel.tensor = 1: the sequence is split over "
            "the tensor-parallel ranks",
            remedy="set parallel.sequence to false, or parallel.tensor above 1",
            involved=("parallel.tensor",),
        )


def _pipeline_problems(config: RunConfig) -> Iterator[Problem]:
    parallel, layers = config.parallel, config.model.layers
    virtual = parallel.virtual_pipeline
    chunks = parallel.pipeline * (virtual or 1)
    arithmetic = f"parallel.pipeline = {parallel.pipeline}"
    if virtual is not None:
        arithmetic += f" times parallel.virtual_pipeline = {virtual}"
        if parallel.pipeline == 1:
            yield Problem(
                key="parallel.virtual_pipeline",
                text=f"parallel.virtual_pipeline = {virtual} needs parallel.pipeline above 1",
                remedy="set it to null, or use more pipeline ranks",
                involved=("parallel.pipeline",),
            )
    if parallel.pipeline_layout is None:
        if layers % chunks:
            yield Problem(
                key="parallel.pipeline",
                text=f"{arithmetic} does not divide model.layers = {layers}",
                remedy=f"{_allowed('stages', _divisors(layers))}; or give parallel.pipeline_layout",
                involved=("model.layers",),
            )
        return
    shown = f"parallel.pipeline_layout = {parallel.pipeline_layout!r}"
    try:
        stages = parse_pipeline_layout(parallel.pipeline_layout)
    except ValueError as error:
        yield Problem(key="parallel.pipeline_layout", text=f"{shown} {error}")
        return
    if len(stages) != chunks:
        yield Problem(
            key="parallel.pipeline_layout",
            text=f"{shown} has {len(stages)} stages, but {arithmetic} asks for {chunks}",
            involved=("parallel.pipeline",),
        )
    held = [stage.layers for stage in stages]
    if sum(held) != layers:
        yield Problem(
            key="parallel.pipeline_layout",
            text=f"{shown} holds {' + '.join(map(str, held))} = {sum(held)} layers, but model.layers = {layers}",
            involved=("model.layers",),
        )


def _batch_problems(config: RunConfig) -> Iterator[Problem]:
    micro, batch = config.training.micro_batch_size, config.training.global_batch_size
    if batch % micro:
        yield Problem(
            key="training.micro_batch_size",
            text=f"training.micro_batch_size = {micro} does not divide training.global_batch_size = {batch}",
            remedy=_allowed("training.micro_batch_size", _divisors(batch)),
            involved=("training.global_batch_size",),
        )


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _allowed(name: str, values: list[int]) -> str:
    if len(values) > 12:
        return f"allowed for {name}: {', '.join(map(str, values[:11]))}, ... {values[-1]}"
    return f"allowed for {name}: {', '.join(map(str, values))}"


def _allowed_multiples(name: str, unit: int, wanted: int) -> str:
    below = wanted // unit * unit
    nearest = [value for value in (below, below + unit) if value > 0]
    return f"allowed for {name}: multiples of {unit}, such as {' or '.join(map(str, nearest))}"
