"""Wheels as the quick start downloads them."""

from __future__ import annotations

from demo_wheels import write_demo_wheels

__all__ = ["write_demo_wheels"]
