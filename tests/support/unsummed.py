"""Files as they were before they held a checksum of themselves."""

from __future__ import annotations

import re

from megatron_salamandra.foundation.own_sums import ANNOUNCEMENT, OWN_SUM

_KEYS = f"(?:{ANNOUNCEMENT}|{OWN_SUM})".encode()


def without_own_sum(raw: bytes) -> bytes:
    """The plan, lock or manifest without its first and its last key."""
    if raw.startswith(b"{"):
        raw = re.sub(rb'(?m),?\n *"own_sha256": .*(?=\n\}\n\Z)', b"", raw)
        return re.sub(rb'\A\{\n *"ends_with": "own_sha256",', b"{", raw)
    return re.sub(rb"(?m)^%s: .*\n" % _KEYS, b"", raw)
