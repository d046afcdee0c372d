"""The variants of a training step: the same model, and another code for one operation or for all of them."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

REFERENCE = tuple(f"kernels.{key}=reference" for key in ("rope", "swiglu", "loss", "weight_gradient"))
ENGINE = tuple(f"kernels.{key}=transformer_engine" for key in ("rope", "swiglu", "loss"))


@dataclasses.dataclass(frozen=True)
class Variant:
    """What differs from the defaults."""

    what: str
    overrides: tuple[str, ...] = ()
    torch_norm: bool = False
    """RMSNorm of torch, as in Megatron-Core's own layers, in the place of ours."""

    core_fusions: bool = False
    """SwiGLU through torch.compile and the fused cross-entropy of Megatron-Core."""

    package: str | None = None
    """What must be installed."""

    def missing_package(self) -> str | None:
        """Why this variant cannot run here, or None."""
        if self.package is None or importlib.util.find_spec(self.package):
            return None
        return f"{self.package} is not installed"


# Most wanted first, should the time not suffice for all.
VARIANTS = {
    "ours": Variant("the defaults"),
    "megatron-core": Variant(
        "Megatron-Core, with the fusions it has without other packages", REFERENCE, True, True
    ),
    "megatron-core-unfused": Variant("Megatron-Core, every operation on its own", REFERENCE, True),
    "ours-chunked-head": Variant(
        "kernels.loss_chunk_tokens = 2048 (default: none)", ("kernels.loss_chunk_tokens=2048",)
    ),
    "ours-without-loss": Variant("kernels.loss = reference", ("kernels.loss=reference",)),
    "ours-without-rope": Variant("kernels.rope = reference", ("kernels.rope=reference",)),
    "ours-without-swiglu": Variant("kernels.swiglu = reference", ("kernels.swiglu=reference",)),
    "ours-without-weight-gradient": Variant(
        "kernels.weight_gradient = reference", ("kernels.weight_gradient=reference",)
    ),
    "ours-without-norm": Variant("RMSNorm of torch", torch_norm=True),
    "transformer-engine": Variant(
        "kernels.rope, swiglu and loss = transformer_engine", ENGINE, package="transformer_engine"
    ),
}
# Those that run our code alone.
OURS = ("ours", "ours-chunked-head")


def apply(variant: Variant) -> None:
    """Make this process build models of ``variant``: what its overrides cannot say."""
    from megatron_salamandra.model import build, spec

    if variant.torch_norm:
        from megatron.core.transformer.torch_norm import WrappedTorchNorm

        spec.RMSNorm = WrappedTorchNorm
    if variant.core_fusions:
        ours = build.transformer_config

        def with_fusions(*arguments: Any, **named: Any) -> Any:
            return dataclasses.replace(
                ours(*arguments, **named),
                bias_activation_fusion=True,
                cross_entropy_loss_fusion=True,
                cross_entropy_fusion_impl="native",
            )

        build.transformer_config = with_fusions
