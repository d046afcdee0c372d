"""Pre-training of multilingual language models on Megatron-Core.

Importing this package costs nothing: torch is imported only by the rooms that compute.
"""

from __future__ import annotations

__version__ = "0.1.0"
