"""``python -m megatron_salamandra.cli`` is the ``salamandra`` command."""

from __future__ import annotations

from megatron_salamandra.cli import command

if __name__ == "__main__":
    command()
