"""The sections of a run configuration: every key with its unit, range and reason."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from megatron_salamandra.config.profile_section import ProfileSection
from megatron_salamandra.config.section import FilePath, LanguageNames, Section
from megatron_salamandra.foundation.import_paths import IMPORT_PATH


class ModelSection(Section):
    """Shape of the network: pre-norm RMSNorm, SwiGLU, RoPE, no biases, no dropout, untied embeddings."""

    name: str = Field(min_length=1, description="Name of the model, written into checkpoints and exports.")
    layers: int = Field(ge=1, description="Number of transformer layers.")
    hidden_size: int = Field(ge=2, description="Width of the residual stream, in features.")
    ffn_hidden_size: int = Field(
        ge=1, description="Width of one of the two SwiGLU projections (gate and up), in features."
    )
    attention_heads: int = Field(
        ge=1,
        description="Query heads; hidden_size / attention_heads is the head dimension, which RoPE needs even.",
    )
    query_groups: int | None = Field(
        default=None,
        ge=1,
        description="Key/value heads (grouped-query attention); attention_heads if not given, that is multi-head.",
    )
    vocab_size: int = Field(
        ge=1,
        description="Rows of the two vocabulary matrices, in ids; must cover the tokenizer. Never padded.",
    )
    rope_base: float = Field(default=10000.0, gt=1.0, description="Base of the rotary frequencies (theta).")
    rope_scaling: RopeScalingSection | None = Field(
        default=None, description="Stretched wavelengths for long windows; none if null."
    )
    norm_eps: float = Field(default=1e-5, gt=0.0, description="Added to the mean square inside RMSNorm.")
    init_std: float = Field(
        default=0.02,
        gt=0.0,
        description="Standard deviation of the initial weights; the matrices that write into the residual stream "
        "(attention output, MLP down) use init_std / sqrt(2 * layers).",
    )

    def computation(self) -> dict[str, Any]:
        """What two models must agree on for the weights of one to mean the same in the other, as JSON values.

        That is all but the name and the spread of the initial weights.
        """
        return self.model_dump(mode="json", exclude={"name", "init_std"})

    @property
    def groups(self) -> int:
        """Key/value heads, with the multi-head default resolved."""
        return self.attention_heads if self.query_groups is None else self.query_groups

    @property
    def head_dim(self) -> int:
        """Features per attention head."""
        return self.hidden_size // self.attention_heads


class RopeScalingSection(Section):
    """Llama-3's stretching of the rotary wavelengths, for windows longer than those of pre-training."""

    factor: float = Field(
        gt=1.0, description="How much the longest wavelengths are stretched, such as 4 from 8,192 to 32,768."
    )
    original_sequence_length: int = Field(
        ge=1, description="Window of pre-training, in tokens; decides which wavelengths are long."
    )
    low_frequency_factor: float = Field(
        default=1.0,
        gt=0.0,
        description="Wavelengths above original_sequence_length / this are stretched by the whole factor.",
    )
    high_frequency_factor: float = Field(
        default=4.0,
        gt=0.0,
        description="Wavelengths below original_sequence_length / this are kept; above low_frequency_factor.",
    )


class ParallelSection(Section):
    """How the model is spread over ranks. Data parallelism is what remains of the world size."""

    tensor: int = Field(
        default=1,
        ge=1,
        description="Tensor-parallel ranks: splits heads, MLP and vocabulary. Keep it inside one node.",
    )
    pipeline: int = Field(default=1, ge=1, description="Pipeline-parallel ranks: splits the layers.")
    virtual_pipeline: int | None = Field(
        default=None,
        ge=1,
        description="Model chunks per pipeline rank (interleaved schedule): a smaller bubble for more messages. "
        "Needs pipeline > 1 and micro-batches per step divisible by pipeline. 1 means none.",
    )
    sequence: bool = Field(
        default=False,
        description="Sequence parallelism: norms and residuals split along the sequence over the tensor-parallel "
        "ranks. Saves activation memory at no extra traffic. Needs tensor > 1.",
    )
    pipeline_layout: str | None = Field(
        default=None,
        description="Which layers each stage holds, in Megatron-Core's notation: E embedding, t layer, L head and "
        "loss, | next stage, x*n and (...)*n repeat. `salamandra plan` suggests a balanced one.",
    )

    @field_validator("virtual_pipeline")
    @classmethod
    def _one_chunk_is_no_interleaving(cls, value: int | None) -> int | None:
        return None if value == 1 else value


class TrainingSection(Section):
    """Batches, length and numerics of the run."""

    micro_batch_size: int = Field(ge=1, description="Samples a rank runs at once; memory grows with it.")
    global_batch_size: int = Field(
        ge=1,
        description="Samples per optimizer step over all ranks; divisible by micro_batch_size * data ranks.",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="Length of the run in optimizer steps. Exactly one of steps and tokens.",
    )
    tokens: int | None = Field(
        default=None,
        ge=1,
        description="Length of the run in tokens, rounded up to whole steps. Exactly one of steps and tokens.",
    )
    seed: int = Field(
        default=1234, ge=0, lt=2**63, description="Seed of the initial weights and of the order of the data."
    )
    grad_clip: float = Field(
        default=1.0, ge=0.0, description="Largest global L2 norm of the gradient; 0 switches clipping off."
    )
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="Activations computed again in backward instead of kept: none, selective (core attention) "
        "or full (every layer).",
    )
    z_loss: float = Field(
        default=0.0, ge=0.0, description="Weight of the squared log-normaliser added to the loss; 0 is off."
    )
    garbage_collection_steps: int | None = Field(
        default=50,
        ge=1,
        description="Every rank runs Python's garbage collector at the multiples of this step and at no other time, so "
        "that ranks do not wait for each other's; null leaves it to Python.",
    )
    profile: ProfileSection | None = Field(
        default=None, description="Steps whose trace is written into run_dir/profile; none if null."
    )
    stop_after_steps: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this step, counted from the beginning of the run: save everything and exit with "
        "code 75, without shortening the schedule. For drills and half-way stops.",
    )


class OptimizerSection(Section):
    """The optimizer and its learning-rate schedule.

    Master weights and moments are fp32 and sharded over the data-parallel ranks (ZeRO-1). Norm weights are
    not decayed.
    """

    name: str = Field(
        default="adamw",
        pattern=rf"^adamw$|{IMPORT_PATH}",
        description="adamw, or the import path (package.module:Class) of a subclass of "
        "megatron_salamandra.optim.ShardedOptimizer. Cannot change in a run: its moments would mean something else.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Keyword arguments of an optimizer other than adamw; refused for adamw."
    )
    lr: float = Field(gt=0.0, description="Peak learning rate.")
    min_lr: float = Field(
        default=0.0, ge=0.0, description="Learning rate at the end of the schedule (not used by constant)."
    )
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        default="cosine",
        description="After the linear warm-up: cosine to min_lr over the whole run; wsd stays at lr and decays "
        "over the last decay_steps; constant stays at lr.",
    )
    warmup_steps: int = Field(default=2000, ge=0, description="Steps of linear warm-up from 0 to lr.")
    decay_steps: int | None = Field(
        default=None, ge=1, description="Steps of the final decay of wsd; required by wsd, refused otherwise."
    )
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0, description="Decay of the mean of the gradient.")
    beta2: float = Field(
        default=0.95, ge=0.0, lt=1.0, description="Decay of the mean of the squared gradient."
    )
    eps: float = Field(default=1e-8, gt=0.0, description="Added to the root of the second moment.")
    weight_decay: float = Field(default=0.1, ge=0.0, description="Decoupled weight decay, times lr per step.")
    overlap_grad_reduce: bool = Field(
        default=False, description="Reduce gradients while backward still runs. Same numbers, less waiting."
    )
    overlap_param_gather: bool = Field(
        default=False,
        description="Gather updated parameters during the next forward. Needs overlap_grad_reduce.",
    )


class DataSection(Section):
    """What is read."""

    sequence_length: int = Field(ge=1, description="Tokens of one training window.")
    blend: FilePath | None = Field(
        default=None,
        description="Blend plan written by `salamandra data blend`; relative to the current directory. "
        "Required to train.",
    )
    continue_from: FilePath | None = Field(
        default=None,
        description="Run directory of an earlier phase, or one of its checkpoints; relative to the current directory. "
        "Each language goes on where that run left it. null: every language starts at its first window.",
    )
    new_text: LanguageNames = Field(
        default=(),
        description="Languages whose text is not that of the earlier phase: they start at their first window. Needs "
        "continue_from.",
    )
    document_masking: bool = Field(
        default=False,
        description="No token attends to another document of its window. The published runs did not mask.",
    )
    reset_positions: bool = Field(
        default=False,
        description="Rotary positions start at 0 in every document. Needs kernels.rope = fused.",
    )
    prefetch_steps: int = Field(
        default=2,
        ge=1,
        description="Steps of batches read ahead by a background thread; costs host memory only.",
    )
    block_check_mb_per_second: float = Field(
        default=8.0,
        ge=0.0,
        description="Blocks of shards (64 MiB) are compared with their checksums in one of their first readings, by "
        "the thread that reads ahead of the one data-parallel rank that each is dealt to: at most so many MB a second "
        "and rank, so some of a block may be trained on before. 0: never.",
    )
    max_epochs_warning: float = Field(
        default=4.0,
        gt=0.0,
        description="Warn about languages the run would see more often than this, in epochs.",
    )


class KernelsSection(Section):
    """Who computes the operations around the matrix products.

    ``fused`` is this project's own kernel (Triton on CUDA, its plain-torch twin on the CPU), ``reference`` is
    Megatron-Core's own unfused code, and the others are optional packages, refused when they are missing.
    The defaults: docs/decisions/0011-kernel-defaults.md.
    """

    rope: Literal["fused", "reference", "transformer_engine"] = Field(
        default="fused", description="Rotary embedding: fused rotates Q and K inside the packed QKV."
    )
    swiglu: Literal["fused", "reference", "transformer_engine"] = Field(
        default="fused",
        description="Activation of the MLP: fused keeps only its input, and backward writes over that.",
    )
    loss: Literal["fused", "reference", "transformer_engine"] = Field(
        default="fused",
        description="Cross-entropy over the vocabulary: fused writes the gradient over the logits, without fp32 "
        "logits. z_loss needs it.",
    )
    loss_chunk_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Compute head and loss together for so many tokens of a micro-batch at a time, so that the "
        "logits never exist as a whole: less memory for a little time; 2048 or more. null: all at once. Needs "
        "loss = fused.",
    )
    weight_gradient: Literal["fused", "reference", "apex"] = Field(
        default="fused",
        description="How gradients of weight matrices reach the fp32 accumulators: fused adds each product (and "
        "the embedding's rows) straight to them; reference rounds it, stores it and adds it in a second pass; apex "
        "is its CUDA extension.",
    )


class ValidationSection(Section):
    """Loss, perplexity and bits per byte of each language on its validation shards."""

    every_steps: int | None = Field(
        default=None, ge=1, description="Validate every so many steps; none if null."
    )
    samples_per_language: int = Field(
        default=64, ge=1, description="Windows of sequence_length read per language, always the same ones."
    )
    at_start: bool = Field(default=False, description="Validate before the first step of the run.")
    at_end: bool = Field(default=True, description="Validate after the last step of the run.")


class CheckpointSection(Section):
    """When checkpoints are written and which are kept."""

    every_steps: int | None = Field(default=None, ge=1, description="Save every so many steps; none if null.")
    keep_last: int | None = Field(default=3, ge=1, description="Newest checkpoints kept; all if null.")
    keep_every_steps: int | None = Field(
        default=None,
        ge=1,
        description="Checkpoints at multiples of this step are never deleted; none if null.",
    )
    asynchronous: bool = Field(
        default=True,
        description="Write in the background while training goes on, from a copy in host memory.",
    )
    at_end: bool = Field(default=True, description="Save after the last step of the run.")
    local_dir: FilePath | None = Field(
        default=None,
        description="Directory on a disk of each node, such as /scratch/$USER: tensors are written there first and "
        "uploaded to run_dir while training goes on, and a resume reads them there if they are intact. A checkpoint "
        "is one only when its upload is complete.",
    )
    local_keep: int = Field(
        default=1,
        ge=1,
        description="Newest checkpoints kept in local_dir by each node; a running save counts.",
    )
    retry_seconds: float = Field(
        default=60.0,
        ge=0.0,
        description="For how long what the disk refuses in a save is tried again, with growing pauses, in seconds.",
    )
    timeout_seconds: float = Field(
        default=1500.0,
        gt=0.0,
        description="A save that is not complete after so many seconds is given up; so long the next one waits for it.",
    )


class GuardSection(Section):
    """What becomes of steps whose loss or gradient norm is not a number, or far above what is usual.

    Each is an incident: an event, and a file in ``run_dir/incidents`` with the documents of the step.
    """

    window: int = Field(
        default=128,
        ge=8,
        description="Steps whose median and spread say what is usual, and that the budget is for.",
    )
    spike_threshold: float | None = Field(
        default=10.0,
        gt=0.0,
        description="A step is a spike if its loss, or the logarithm of its gradient norm, is so many robust standard "
        "deviations above the median; null looks for none.",
    )
    on_spike: Literal["none", "skip", "roll_back"] = Field(
        default="none",
        description="none (record only), skip (leave the update out), or roll_back (to the newest intact checkpoint, "
        "and go on behind the samples of this step).",
    )
    on_nonfinite: Literal["fail", "skip", "roll_back"] = Field(
        default="skip", description="The same for a loss or norm that is NaN or infinite; fail ends the run."
    )
    budget: int = Field(
        default=3,
        ge=1,
        description="Steps of a window that may be skipped, rolled back or mended. Beyond it spikes are recorded only, "
        "and what is not finite, or weights that differ between twins, end the run.",
    )
    twins_every: int | None = Field(
        default=None,
        ge=1,
        description="Compare the bits of all weights between ranks that hold the same ones every so many steps, and "
        "in steps that are saved; none if null. A weight that differs is copied from the majority of its twins; where "
        "there is none, the run goes back to its newest intact checkpoint.",
    )


class LoggingSection(Section):
    """What is reported, beyond metrics.jsonl, which has every step."""

    console_every_steps: int = Field(default=10, ge=1, description="One console line every so many steps.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard scalars into run_dir/tensorboard.")
    wandb_project: str | None = Field(
        default=None,
        min_length=1,
        description="Weights & Biases project that gets every metric too, none if null. Needs wandb; log-in, server "
        "and mode are read from its own WANDB_* variables.",
    )
    mlflow_experiment: str | None = Field(
        default=None,
        min_length=1,
        description="MLflow experiment that gets every metric too, none if null. Needs mlflow; the server is read "
        "from MLFLOW_TRACKING_URI.",
    )


class HangSection(Section):
    """How long a rank may stay where it is before it counts as hung: it then writes the stacks of its threads into
    ``run_dir/control`` and ends with code 76. The time of each is counted while the process runs, so not while a job is
    suspended. null is for ever.
    """

    step_seconds: float | None = Field(
        default=300.0,
        gt=0.0,
        description="Longest step, and longest call of one callback, in seconds; ten times the median of the last "
        "50 steps where that is longer.",
    )
    start_seconds: float | None = Field(
        default=1800.0,
        gt=0.0,
        description="From the start of a rank to the end of its first step, in seconds, without saves and validation: "
        "a first batch behind a cold file system, compilation.",
    )
    save_seconds: float | None = Field(
        default=1800.0, gt=0.0, description="Longest beginning or completion of a save, or load, in seconds."
    )
    validation_seconds: float | None = Field(
        default=1800.0, gt=0.0, description="Longest validation of one language, in seconds."
    )
    collective_seconds: float | None = Field(
        default=None,
        gt=0.0,
        description="Time-out of collectives after the first step, in seconds; twenty times the median of the last "
        "steps where that is longer. null: twice step_seconds, so that a watchdog that can act is first. Until the "
        "first step is done, in saves and validation, and always if both are null, it is 300 s more than the longest "
        "of the others.",
    )


class CallbackSection(Section):
    """One entry of ``callbacks``: a class of yours that takes part in training."""

    path: str = Field(
        pattern=IMPORT_PATH,
        description="Import path of a subclass of megatron_salamandra.training.Callback, as package.module:Class.",
    )
    options: dict[str, Any] = Field(default={}, description="Keyword arguments of the class.")
