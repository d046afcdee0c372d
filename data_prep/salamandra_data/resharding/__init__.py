"""Merging and splitting shards: the same documents in the same order, cut elsewhere."""

from __future__ import annotations

from salamandra_data.resharding.cut import Cut, IntoParts, IntoTokens, Whole
from salamandra_data.resharding.reshard import reshard

__all__ = ["Cut", "IntoParts", "IntoTokens", "Whole", "reshard"]
