"""Operations of the Salamandra models: rotary embedding, SwiGLU, RMSNorm and the 256,000-class loss.

Each file holds one operation: its arithmetic in plain torch, its Triton kernels, the autograd
function and the public function. CUDA tensors take the kernels, everything else the torch code;
``SALAMANDRA_KERNELS=reference`` or ``=triton`` decides instead. Depends on torch alone; triton is optional.
"""

from __future__ import annotations

from .cross_entropy import vocab_parallel_cross_entropy
from .embedding import embedding
from .linear_cross_entropy import chunked_linear_cross_entropy
from .rms_norm import rms_norm
from .rope import RopeScaling, rope_split_qkv, rope_table
from .swiglu import swiglu
from .weight_gradient import (
    accumulate_weight_gradient,
    gradient_already_added,
    main_grad_of,
    products_sum_in_fp32,
)

__all__ = [
    "RopeScaling",
    "accumulate_weight_gradient",
    "chunked_linear_cross_entropy",
    "embedding",
    "gradient_already_added",
    "main_grad_of",
    "products_sum_in_fp32",
    "rms_norm",
    "rope_split_qkv",
    "rope_table",
    "swiglu",
    "vocab_parallel_cross_entropy",
]
