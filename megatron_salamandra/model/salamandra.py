"""The decoder-only Salamandra model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from megatron_salamandra.config import KernelsSection, ModelSection
from megatron_salamandra.model.linear import FusedGradientColumnLinear, FusedGradientEmbedding
from megatron_salamandra.model.loss_head import LossHead
from megatron_salamandra.model.rotary import RotaryTable, stock_rotary_embedding
from megatron_salamandra.model.spec import block_spec
from salamandra_kernels import vocab_parallel_cross_entropy


class SalamandraModel(GPTModel):
    """GPT with packed-QKV RoPE, SwiGLU, RMSNorm and an in-place vocabulary-parallel loss.

    Untied embeddings, no biases, no dropout; Salamandra technical report, arXiv 2502.08489.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        model: ModelSection,
        sequence_length: int,
        kernels: KernelsSection,
        z_loss: float = 0.0,
        use_position_ids: bool = False,
        virtual_stage: int | None = None,
        **stages: Any,
    ) -> None:
        """Build one chunk of the model.

        Args:
            config: Megatron-Core's configuration, made from the same sections.
            model: shape of the network.
            sequence_length: tokens of a window.
            kernels: who computes rotary embedding, activation, loss and weight gradients.
            z_loss: weight of the squared log-normaliser in the loss (PaLM, section 5).
            use_position_ids: rotate by the ``position_ids`` given to ``forward``, not by place in the window;
                fused rotary embedding only.
            virtual_stage: number of the chunk on this rank, None without virtual pipelining.
            stages: ``pre_process`` and ``post_process``.
        """
        pipeline_rank = parallel_state.get_pipeline_model_parallel_rank()
        super().__init__(
            config=config,
            transformer_layer_spec=block_spec(config, kernels, virtual_stage, pipeline_rank),
            vocab_size=model.vocab_size,
            max_sequence_length=sequence_length,
            position_embedding_type="rope",
            share_embeddings_and_output_weights=False,
            vp_stage=virtual_stage,
            **stages,
        )
        self.z_loss = z_loss
        self.fused_loss = kernels.loss == "fused"
        self.fused_rope = kernels.rope == "fused"
        self.use_rotary_embedding(model)
        self.use_position_ids = use_position_ids
        if self.pre_process and kernels.weight_gradient == "fused":
            self.embedding.word_embeddings = FusedGradientEmbedding(
                model.vocab_size,
                model.hidden_size,
                init_method=config.init_method,
                reduce_scatter_embeddings=self.embedding.reduce_scatter_embeddings,
                config=config,
                tp_group=self.embedding.tp_group,
            )
        if self.post_process:
            self.output_layer = _output_layer(config, model, kernels, gather_output=not self.parallel_output)
        if self.pre_process or self.post_process:
            self.setup_embeddings_and_output_layer()  # marks the weights of the two that were replaced

    def use_rotary_embedding(self, model: ModelSection) -> None:
        """Rotate as ``model`` says from here on: a later phase may stretch the wavelengths."""
        self.rotary_pos_emb = RotaryTable(model) if self.fused_rope else stock_rotary_embedding(model)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None,
        *,
        labels: Tensor | None = None,
        loss_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Megatron-Core's forward: logits [b, s, V / tp], or with ``labels`` the loss of each token, [b, s] fp32.

        Args:
            input_ids: [b, s] int64.
            position_ids: [b, s] int64, read where the model was built with ``use_position_ids``.
            attention_mask: None, or the bounds of documents, see :class:`CausalAttention`.
            labels: [b, s] int64.
            loss_mask: [b, s], weight of each token in the sum that backward starts from; None: all 1.
            kwargs: anything else that Megatron-Core's forward takes.
        """
        if self.use_position_ids:
            self.rotary_pos_emb.positions = position_ids
        taking_loss: Any = nullcontext()
        if self.post_process and labels is not None and isinstance(self.output_layer, LossHead):
            taking_loss = self.output_layer.with_targets(labels, loss_mask, self._active_z_loss)
        with taking_loss:
            return super().forward(  # type: ignore[no-any-return]
                input_ids, position_ids, attention_mask, labels=labels, loss_mask=loss_mask, **kwargs
            )

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Per-token loss, [b, s] fp32, from labels [b, s] and what the output layer gave.

        That is the loss itself, [s, b], from a :class:`LossHead`, and logits [s, b, V / tp] otherwise. The
        fused loss writes its gradient over the logits, which must not be read afterwards.
        """
        if isinstance(self.output_layer, LossHead):
            return logits.transpose(0, 1)
        if not self.fused_loss:
            return super().compute_language_model_loss(labels, logits)  # type: ignore[no-any-return]
        loss_sb = vocab_parallel_cross_entropy(
            logits,
            labels.transpose(0, 1).contiguous(),
            tp_group=parallel_state.get_tensor_model_parallel_group(),
            z_loss=self._active_z_loss,
        )
        return loss_sb.transpose(0, 1)

    @property
    def _active_z_loss(self) -> float:
        # A regulariser of training; validation reports the plain cross-entropy.
        return self.z_loss if self.training else 0.0


def _output_layer(
    config: TransformerConfig, model: ModelSection, kernels: KernelsSection, gather_output: bool
) -> ColumnParallelLinear:
    """The head that the kernels ask for."""
    shared: dict[str, Any] = {
        "config": config,
        "init_method": config.init_method,
        "bias": False,
        "gather_output": gather_output,
        "tp_group": parallel_state.get_tensor_model_parallel_group(),
    }
    sizes = model.hidden_size, model.vocab_size
    if kernels.loss_chunk_tokens is not None:
        return LossHead(*sizes, chunk_tokens=kernels.loss_chunk_tokens, **shared)
    fused_gradient = kernels.weight_gradient == "fused"
    return (FusedGradientColumnLinear if fused_gradient else ColumnParallelLinear)(*sizes, **shared)
