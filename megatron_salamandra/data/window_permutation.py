"""In which order an epoch walks through the windows of a source: a keyed permutation of [0, W).

The permutation is a generalised Feistel network: an index is split into a pair of digits
``i = high * columns + low`` with ``low < columns``, ``high < rows`` and ``rows * columns >= W`` as tight as
possible, and each of the :data:`ROUNDS` rounds adds a keyed hash of one digit to the other one, modulo that
digit's range. Each round can be undone, so the whole is a permutation of ``rows * columns`` values. A value
that lands outside [0, W) is put through again until it lands inside ("cycle walking"), which restricts the
permutation to [0, W); fewer than ``columns`` values lie outside, so a second pass is rare.

Format 1, frozen: the order of a run must never change between versions, machines or Python builds.

* ``columns = ceil(sqrt(W))``, ``rows = ceil(W / columns)``.
* Round keys: 96 bytes of SHAKE-128 of the UTF-8 text ``salamandra-window-order/1|SEED|EPOCH|SOURCE`` (numbers
  in decimal), read as twelve little-endian unsigned 64-bit integers, one per round.
* Even rounds: ``low = (low + mix(high * G + key[round])) mod columns``; odd rounds: ``high = (high + mix(low * G
  + key[round])) mod rows``. Inside mix all is modulo 2**64; ``G = 0x9E3779B97F4A7C15`` and mix is the SplitMix64
  finaliser (Steele, Lea and Flood, 2014).

Twelve rounds, because with eight the 120 orders of a source of five windows are measurably uneven over seeds;
with twelve they are not. Larger sources would do with fewer.
"""

from __future__ import annotations

import hashlib
import math
import struct

ORDER_FORMAT = 1
ROUNDS = 12

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


class WindowPermutation:
    """A pseudo-random permutation of [0, windows), computed value by value.

    Args:
        windows: W, the size of the permuted range, at least 1.
        seed: of the run.
        epoch: pass over the source, from 0; each pass has its own order.
        source: name of the source, which is mostly its language; sources of one size still have different orders.

    Holds twelve keys whatever the size; one call takes about 7 microseconds.
    """

    __slots__ = ("_columns", "_key_pairs", "_rows", "windows")

    def __init__(self, windows: int, *, seed: int, epoch: int, source: str) -> None:
        if windows < 1:
            raise ValueError(f"a permutation needs at least one window; {source} has {windows}")
        self.windows = windows
        self._columns = math.isqrt(windows - 1) + 1
        self._rows = -(-windows // self._columns)
        text = f"salamandra-window-order/{ORDER_FORMAT}|{seed}|{epoch}|{source}"
        digest = hashlib.shake_128(text.encode("utf-8")).digest(8 * ROUNDS)
        keys = struct.unpack(f"<{ROUNDS}Q", digest)
        self._key_pairs = tuple(zip(keys[0::2], keys[1::2], strict=True))

    def __call__(self, index: int) -> int:
        """Return the window that comes ``index``-th in this epoch's order; both lie in [0, windows)."""
        if not 0 <= index < self.windows:
            raise ValueError(f"index {index} is outside [0, {self.windows})")
        columns, rows = self._columns, self._rows
        value = index
        while True:
            high, low = divmod(value, columns)
            for key_low, key_high in self._key_pairs:  # the mix is written out: a call would double the time
                z = (high * _GOLDEN + key_low) & _MASK
                z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
                z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
                low = (low + (z ^ (z >> 31))) % columns
                z = (low * _GOLDEN + key_high) & _MASK
                z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
                z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
                high = (high + (z ^ (z >> 31))) % rows
            value = high * columns + low
            if value < self.windows:
                return value
