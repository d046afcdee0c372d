"""Where the shards of a group begin, in the range of keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from salamandra_data.tokenization.document_hash import KEY_RANGE, even_bounds
from salamandra_data.tokenization.run_file import Group, Run

_MANY_DOCUMENTS = 10_000  # in a shard: then ranges of one width hold one share of the text, to a few percent


def shard_bounds(runs: Sequence[Run], group: Group, shards: int) -> tuple[int, ...]:
    """Rising keys from 0 to ``2**64``: between each two are the documents of one shard, at least one.

    Few documents are cut by their sizes, so that shards differ by no more than a document, and there are fewer of
    them than ``shards`` if there are too few documents. Memory is 160 kB for each shard.

    Args:
        runs: all runs.
        group: language and split.
        shards: how many are wanted.
    """
    mine = [run for run in runs if group in run.groups]
    documents = sum(run.groups[group].last - run.groups[group].first for run in mine)
    if documents >= _MANY_DOCUMENTS * shards:
        return even_bounds(shards)
    keys, sizes = (np.concatenate(arrays) for arrays in zip(*(run.sizes(group) for run in mine), strict=True))
    order = np.argsort(keys, kind="stable")
    keys, ends = keys[order], np.cumsum(sizes[order].astype(np.int64))
    wanted = np.arange(1, shards) * (int(ends[-1]) / shards)
    after = np.searchsorted(ends, wanted)
    before = ends[after] - sizes[order][after].astype(np.int64)
    first = np.where(wanted - before < ends[after] - wanted, after, after + 1)  # the nearer end of a document
    starts = np.unique(keys[first[first < keys.size]])
    return (0, *starts[starts > keys[0]].tolist(), KEY_RANGE)
