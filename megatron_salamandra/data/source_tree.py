"""Which source sample k comes from: a binary tree over exact integer weights.

The rule
--------
A node with total weight ``t`` and left child of weight ``a`` hands its local index ``n`` to the left child
iff ``floor((n + 1) * a / t) > floor(n * a / t)``; the child's local index is then ``floor(n * a / t)``. All
other indices go right, with local index ``n - floor(n * a / t)``. At the root the local index is the sample
number; at a leaf it is the ordinal of the sample within its source. Everything is exact integer arithmetic,
so the answer is the same on every machine and for runs of any length.

The shape
---------
The tree is Huffman's: the two lightest nodes are joined until one is left, so a frequent source sits near the
root and the mean number of comparisons is close to the entropy of the blend. At each node **the heavier child
takes the side opposite to the side its parent took**, which makes the following bound hold.

Why every prefix is within two samples of its exact share
---------------------------------------------------------
Write ``err(v)`` for (samples of node v among the first n) minus its exact share. The rule gives
``err(child) = (w_child / w_parent) * err(parent) + s * f`` with ``0 <= f < 1``, ``s = -1`` for a left child and
``+1`` for a right child, and ``err(root) = 0``. A leaf's error is therefore a sum of one term of each sign
pattern along its path, the term of ancestor v being worth at most ``w_leaf / w_v``. Let S(v) bound the terms,
in units of ``w_v``, that have the sign of v's own side, and O(v) those of the opposite sign.

* v is the lighter child of p: same side as p and ``w_v <= w_p / 2``: S(v) <= 1 + S(p)/2, O(v) <= O(p)/2.
* v is the heavier child of p: opposite side, so O(v) <= S(p). The sibling of p was not lighter than v when p
  was made (Huffman), hence the grandparent g weighs at least ``2 * w_v`` and S(v) <= 1 + max(S(g), O(g))/2.

Children of the root have S = 1 and O = 0, so by induction S < 2 and O < 2 in any finite tree: the error of every
source stays strictly between -2 and 2 samples, whatever the weights and the length of the run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence


class SourceTree:
    """Deals samples to sources in exact proportion to integer weights.

    Args:
        weights: one positive integer per source, of any size; only their ratios matter. The order of the
            sources decides between equal weights, and nothing else.

    Raises:
        ValueError: no source, or a weight that is not a positive integer.

    Building is O(S log S) for S sources; nothing depends on the number of samples.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights:
            raise ValueError("a source tree needs at least one source; got none")
        for source, weight in enumerate(weights):
            if weight <= 0:
                raise ValueError(f"weight of source {source} is {weight}; weights must be positive integers")
        divisor = math.gcd(*weights)  # ratios only: smaller integers divide faster
        self.weights = tuple(weight // divisor for weight in weights)
        self._source_count = len(weights)

        # Node ids: 0..S-1 are leaves (the source's number), then inner nodes in the order of their making.
        # Equal weights are joined in the order of their ids.
        node_weight = list(self.weights)
        children: list[tuple[int, int]] = []  # (lighter, heavier) of inner node S + i
        heap = [(weight, node) for node, weight in enumerate(node_weight)]
        heapq.heapify(heap)
        while len(heap) > 1:
            lighter_weight, lighter = heapq.heappop(heap)
            heavier_weight, heavier = heapq.heappop(heap)
            heapq.heappush(heap, (lighter_weight + heavier_weight, len(node_weight)))
            node_weight.append(lighter_weight + heavier_weight)
            children.append((lighter, heavier))

        self._root = len(node_weight) - 1
        self._total = node_weight
        self._left = [-1] * len(node_weight)
        self._right = [-1] * len(node_weight)
        is_left_child = [False] * len(node_weight)
        for node in range(self._root, self._source_count - 1, -1):  # parents before children
            lighter, heavier = children[node - self._source_count]
            left, right = (lighter, heavier) if is_left_child[node] else (heavier, lighter)
            self._left[node], self._right[node] = left, right
            is_left_child[left] = True
        self._left_weight = [node_weight[left] if left >= 0 else 0 for left in self._left]

    def locate(self, sample: int) -> tuple[int, int]:
        """Return ``(source, ordinal)`` of a sample: it is the ordinal-th (from 0) sample of that source."""
        if sample < 0:
            raise ValueError(f"sample numbers start at 0; got {sample}")
        node, index = self._root, sample
        while node >= self._source_count:
            # floor((n+1)a/t) > floor(na/t) exactly when the remainder of na/t plus a reaches t.
            before, remainder = divmod(index * self._left_weight[node], self._total[node])
            if remainder + self._left_weight[node] >= self._total[node]:
                node, index = self._left[node], before
            else:
                node, index = self._right[node], index - before
        return node, index

    def counts(self, samples: int) -> list[int]:
        """Return how many of the first ``samples`` samples each source receives. O(S)."""
        if samples < 0:
            raise ValueError(f"a prefix has at least 0 samples; got {samples}")
        counts = [0] * len(self._total)
        counts[self._root] = samples
        for node in range(self._root, self._source_count - 1, -1):
            to_left = counts[node] * self._left_weight[node] // self._total[node]
            counts[self._left[node]] = to_left
            counts[self._right[node]] = counts[node] - to_left
        return counts[: self._source_count]
