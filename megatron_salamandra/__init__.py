"""Pre-training of multilingual language models on Megatron-Core.

Importing this package costs nothing: torch is imported only by the rooms that compute.
"""

from __future__ import annotations

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # as it is while Python looks for a module of this package, to run it
    from megatron_salamandra.foundation.module_path import leave_out_current_directory

    leave_out_current_directory()
