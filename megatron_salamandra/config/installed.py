"""Optional packages that a configuration asks for: found without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from packaging.version import Version

from megatron_salamandra.config.errors import Problem
from megatron_salamandra.foundation.packages import is_installed

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

# Key of `logging` -> the module that it needs.
_TRACKERS = {"wandb_project": "wandb", "mlflow_experiment": "mlflow"}

# Before it, the loss kept its gradient in the bf16 logits, and runs diverged: TransformerEngine pull request 3193.
_LEAST_ENGINE_FOR_LOSS = Version("2.18")


def missing_packages(config: RunConfig) -> list[Problem]:
    """One problem for each key that asks for a package which is not installed, or too old for it."""
    problems = []
    for key, value in config.kernels.model_dump().items():
        module, remedy = _MODULES.get(value, (None, ""))
        if module is None:
            continue
        if find_spec(module) is None:
            lack = f"the module {module} is not installed"
        elif key == "loss" and (found := _engine_version()) < _LEAST_ENGINE_FOR_LOSS:
            lack = f"Transformer Engine {found} rounds its gradient twice; {_LEAST_ENGINE_FOR_LOSS} does not"
        else:
            continue
        problems.append(
            Problem(
                key=f"kernels.{key}",
                text=f"kernels.{key} = {value}, but {lack}",
                remedy=f"{remedy}, or use kernels.{key} = fused",
            )
        )
    for key, module in _TRACKERS.items():
        if getattr(config.logging, key) is not None and not is_installed(module):
            problems.append(
                Problem(
                    key=f"logging.{key}",
                    text=f"logging.{key} is set, but the module {module} is not installed",
                    remedy=f"pip install {module}, or leave logging.{key} out",
                )
            )
    return problems


def _engine_version() -> Version:
    try:
        return Version(version("transformer-engine"))
    except PackageNotFoundError:  # built from source under another name; there is no telling
        return _LEAST_ENGINE_FOR_LOSS
