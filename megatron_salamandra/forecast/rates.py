"""What of a machine's stated rates is reached in training.

Two of these constants are fitted to published throughput (:mod:`calibration`). The others are stated with their
reason and were not fitted; together they decide less than the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_salamandra.forecast.workload import Attention

_ATTENTION_TERAFLOPS: dict[Attention, tuple[float, float]] = {
    "cudnn": (550.0, 430.0),
    "flash2": (370.0, 290.0),
    "triton": (264.0, 145.0),
}
"""Forward and backward on an H100, causal, head dimension 128, windows of 8,192. Of cuDNN and FlashAttention 2 as their
makers measured; of the Triton kernel of FlashAttention 1 from the paper on FlashAttention 2 (arXiv:2307.08691): its
forward pass is 1.3 to 1.5 and its backward pass about 2 times slower."""

_ATTENTION_MATRIX_SHARE = 0.63
"""Share of the peak that large bf16 products reach where the rates above were measured; attention is slower in
training than alone by the same factor as they are, since both are held back by power."""

_H100_TERAFLOPS = 989.4


@dataclass(frozen=True)
class Rates:
    """Shares of stated rates, and fixed costs.

    Attributes:
        matrix_share: of the bf16 peak in large products. Fitted.
        fp8_share: of the fp8 peak. Fitted.
        memory_share: of the memory's bandwidth in kernels that only read and write; 85 % is what large copies reach.
        link_share: of NVLink in one direction by collectives of a node: 75 % (nccl-tests report 330 to 370 GB/s of
            bus bandwidth for large messages on eight H100).
        network_share: of the adapters by collectives between nodes.
        overlap_window: share of a pass during which data-parallel collectives find something to overlap.
        overlap_cost: share of their time that overlapped collectives cost, as they take memory bandwidth and
            multiprocessors from products.
        tensor_overlap_left: share of tensor-parallel communication that remains when collectives are cut in pieces.
        power_exponent: of the power limit in the clock; dynamic power grows with its square to cube.
        fixed_seconds: of a step: reading metrics, input, the host's part of the optimizer, waiting for each other.
        optimizer_bytes: read and written for each parameter's optimizer state: gradient 4, weight 2, and masters and
            moments in fp32, 12 read and 12 written.
        gradient_sweep_bytes: read and written for each gradient that is kept: cleared, and scaled once.
        context_cost: share by which attention over several ranks is slower than on one.
    """

    matrix_share: float = 0.638
    fp8_share: float = 0.586
    memory_share: float = 0.85
    link_share: float = 0.75
    network_share: float = 0.8
    overlap_window: float = 0.7
    overlap_cost: float = 0.15
    tensor_overlap_left: float = 0.4
    power_exponent: float = 0.5
    fixed_seconds: float = 0.02
    optimizer_bytes: float = 30.0
    gradient_sweep_bytes: float = 8.0
    context_cost: float = 0.05

    def attention_flops(self, backend: Attention, bf16_teraflops: float) -> tuple[float, float]:
        """FLOP/s of attention forward and backward on a GPU of that peak."""
        scale = 1e12 * bf16_teraflops / _H100_TERAFLOPS * self.matrix_share / _ATTENTION_MATRIX_SHARE
        forward, backward = _ATTENTION_TERAFLOPS[backend]
        return forward * scale, backward * scale
