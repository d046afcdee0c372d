"""The decoder-only Salamandra model."""

from __future__ import annotations

from typing import Any

from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from megatron_salamandra.model.rotary import RotaryTable
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
        vocab_size: int,
        sequence_length: int,
        rope_base: float,
        z_loss: float = 0.0,
        virtual_stage: int | None = None,
        **stages: Any,
    ) -> None:
        """Build one chunk of the model.

        Args:
            config: Megatron-Core's configuration.
            vocab_size: rows of the embedding and of the head over all ranks.
            sequence_length: longest window, in tokens.
            rope_base: base of the rotary angles.
            z_loss: weight of the squared log-normaliser in the loss (PaLM, section 5).
            virtual_stage: number of the chunk on this rank, None without virtual pipelining.
            stages: ``pre_process`` and ``post_process``.
        """
        pipeline_rank = parallel_state.get_pipeline_model_parallel_rank()
        super().__init__(
            config=config,
            transformer_layer_spec=block_spec(config, virtual_stage, pipeline_rank),
            vocab_size=vocab_size,
            max_sequence_length=sequence_length,
            position_embedding_type="rope",
            share_embeddings_and_output_weights=False,
            vp_stage=virtual_stage,
            **stages,
        )
        self.z_loss = z_loss
        self.rotary_pos_emb = RotaryTable(config.kv_channels, rope_base)

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Per-token loss, [b, s] fp32, from labels [b, s] and logits [s, b, V / tp].

        The gradient is written over the logits, which must not be read afterwards.
        """
        loss_sb = vocab_parallel_cross_entropy(
            logits,
            labels.transpose(0, 1).contiguous(),
            tp_group=parallel_state.get_tensor_model_parallel_group(),
            # A regulariser of training; validation reports the plain cross-entropy.
            z_loss=self.z_loss if self.training else 0.0,
        )
        return loss_sb.transpose(0, 1)
