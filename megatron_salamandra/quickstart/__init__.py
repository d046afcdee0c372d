"""The quick start: from downloaded text to a trained, exported model in one command.

Every stage calls the public functions of its room, so this is also an example of how they fit together.
"""

from __future__ import annotations

from megatron_salamandra.quickstart.errors import QuickstartError
from megatron_salamandra.quickstart.job import QuickstartJob
from megatron_salamandra.quickstart.quickstart import run_quickstart

__all__ = ["QuickstartError", "QuickstartJob", "run_quickstart"]
