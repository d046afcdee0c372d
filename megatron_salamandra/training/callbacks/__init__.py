"""What happens around steps: each concern in its own file, with its own state."""

from __future__ import annotations

from megatron_salamandra.training.callbacks.base import Callback, CallbackList

__all__ = ["Callback", "CallbackList"]
