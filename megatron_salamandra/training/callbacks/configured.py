"""The callbacks that a configuration names. Never imports torch, unless a user's module does."""

from __future__ import annotations

import inspect
from typing import Any

from megatron_salamandra.config import CallbackSection, ConfigError, RunConfig
from megatron_salamandra.foundation.import_paths import ImportPathError, check_options, find_object
from megatron_salamandra.training.callbacks.base import Callback


def configured_callbacks(config: RunConfig) -> list[Callback]:
    """Make every callback of ``callbacks``, in order.

    Called once before torch is imported, so that what cannot be is refused early, and once for the run: making one
    must be cheap and must leave no trace.

    Raises:
        ConfigError: an import path leads to no callback, the class does not take the options, or two have one name;
            names the entry.
    """
    callbacks: list[Callback] = []
    for number, entry in enumerate(config.callbacks, start=1):
        try:
            callbacks.append(_made(entry))
            if callbacks[-1].name in {callback.name for callback in callbacks[:-1]}:
                raise ImportPathError(
                    f"an entry before it is named {callbacks[-1].name}, too\n"
                    "  give one of the classes another `name`: it keeps their states in the checkpoint apart"
                )
        except (TypeError, ValueError) as error:  # the options' values are the class's own business
            origin = config.origin_of("callbacks") or "configuration"
            raise ConfigError(f"{origin}: callbacks, entry {number}: {entry.path}: {error}") from error
    return callbacks


def _made(entry: CallbackSection) -> Callback:
    found: Any = find_object(entry.path)
    if not (inspect.isclass(found) and issubclass(found, Callback)):
        raise ImportPathError(
            "this is no subclass of megatron_salamandra.training.Callback\n  name a class that is one"
        )
    check_options(found, entry.options)
    return found(**entry.options)
