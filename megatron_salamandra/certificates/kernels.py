"""The kernels of this device compute what plain torch does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from megatron_salamandra.certificates.proof import Proof

_BOUND = 2e-5
"""Largest difference in fp32 against fp64, relative to the largest value."""
_BOUND_BF16 = 2.0**-6


def prove_kernels(say: Callable[[str], None]) -> Proof:
    """Values and gradients of every operation on this device, against the torch reference in fp64 on the CPU."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    worst: dict[str, float] = {}
    passed = True
    for dtype, bound in ((torch.float32, _BOUND), (torch.bfloat16, _BOUND_BF16)):
        for name, operation, inputs in _operations():
            label = f"{name} {str(dtype).removeprefix('torch.')}"
            rounded = [value.to(dtype) for value in inputs]
            got = _outputs(operation, [value.to(device) for value in rounded])
            want = _outputs(operation, [value.double() for value in rounded])
            differences = [
                float((a.cpu().double() - b).abs().max() / b.abs().max().clamp_min(1e-12))
                for a, b in zip(got, want, strict=True)
            ]
            # A NaN is no greater than any number, so that max() would pass over it.
            worst[label] = max(differences) if all(map(math.isfinite, differences)) else math.inf
            passed = passed and worst[label] <= bound
            say(f"  {label}: {worst[label]:.1e} ({bound:.1e} allowed)")
    # Without a GPU there is no kernel: what runs then is the reference, and that is what was proved.
    which = "Triton" if device.type == "cuda" and not os.environ.get("SALAMANDRA_KERNELS") else "torch"
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    message = f"{len(worst)} comparisons on {name} ({which}), at most {max(worst.values()):.1e} off"
    bounds = {"float32": _BOUND, "bfloat16": _BOUND_BF16}
    return Proof(passed, message, {"device": name, "code": which, "bounds": bounds, "difference": worst})


def _operations() -> Iterator[tuple[str, Callable[..., Any], list[Any]]]:
    import torch

    import salamandra_kernels as kernels

    generator = torch.Generator().manual_seed(3)

    def values(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    def rotate(qkv: Any) -> Any:
        table = kernels.rope_table(64, 32, 10_000.0, device=qkv.device)
        parts = kernels.rope_split_qkv(qkv * 1, table, q_per_group=2, head_dim=32)
        return torch.cat([part.flatten() for part in parts])

    labels = torch.randint(0, 1000, (64, 2), generator=generator)
    yield "rms_norm", lambda x, weight: kernels.rms_norm(x, weight, 1e-5), [values(64, 2, 256), values(256)]
    yield "swiglu", lambda x: kernels.swiglu(x * 1), [values(64, 2, 512)]
    yield "rope", rotate, [values(64, 2, 2, 128)]
    yield (
        "cross_entropy",
        lambda x: kernels.vocab_parallel_cross_entropy(x * 1, labels.to(x.device), z_loss=1e-4),
        [values(64, 2, 1000)],
    )


def _outputs(operation: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    """The value, and the gradients of all inputs for the same upstream gradient."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    result = operation(*leaves)
    (result.double() * 0.5).sum().backward()
    return [result.detach(), *(leaf.grad for leaf in leaves)]
