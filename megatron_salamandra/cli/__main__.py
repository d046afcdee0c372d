"""``python -m megatron_salamandra.cli`` is the ``salamandra`` command."""

from __future__ import annotations

import sys

from megatron_salamandra.cli import main

if __name__ == "__main__":
    sys.exit(main())
