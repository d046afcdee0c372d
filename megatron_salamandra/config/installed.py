"""Optional packages that a configuration asks for: found without importing them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from megatron_salamandra.config.errors import Problem

if TYPE_CHECKING:
    from megatron_salamandra.config.run_config import RunConfig

# Value of a key of `kernels` -> the module that must be importable, and where it comes from.
_MODULES = {
    "transformer_engine": ("transformer_engine", "pip install 'transformer-engine[pytorch]' (needs CUDA)"),
    "apex": (
        "fused_weight_gradient_mlp_cuda",
        "build apex from source with its extension weight_gradient_mlp_cuda (needs CUDA)",
    ),
}


def missing_packages(config: RunConfig) -> list[Problem]:
    """One problem for each key that asks for a package which is not installed."""
    problems = []
    for key, value in config.kernels.model_dump().items():
        module, remedy = _MODULES.get(value, (None, ""))
        if module is not None and find_spec(module) is None:
            problems.append(
                Problem(
                    key=f"kernels.{key}",
                    text=f"kernels.{key} = {value}, but the module {module} is not installed",
                    remedy=f"{remedy}, or use kernels.{key} = fused",
                )
            )
    return problems
