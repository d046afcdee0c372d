"""Files that hold a checksum of themselves, so that a flipped bit in them is seen by whoever reads them.

The checksum is of every byte before it: it stands last, as one more key of the JSON object or YAML mapping. It is
against accidents; who changes such a file on purpose takes the key out, or writes another one.
"""

from __future__ import annotations

import hashlib
import re

OWN_SUM = "own_sha256"
"""The key."""

_JSON_END = b"\n}\n"
_SUM = re.compile(rb',?\n *"own_sha256": "([0-9a-f]{64})"\n\}\n\Z|(?<=\n)own_sha256: ([0-9a-f]{64})\n\Z')


def with_own_sum(text: bytes) -> bytes:
    """The text of an indented JSON object with keys, or of a block YAML mapping, and its checksum at the end.

    Args:
        text: ends with a line break.
    """
    if text.endswith(_JSON_END):
        body = text.removesuffix(_JSON_END)
        return body + f',\n  "{OWN_SUM}": "{_digest(body)}"'.encode() + _JSON_END
    return text + f"{OWN_SUM}: {_digest(text)}\n".encode()


def own_sum_holds(raw: bytes) -> bool | None:
    """Whether the checksum in a file is that of the file; None if there is none in it.

    Readers also refuse keys that they do not know, so that no single flip can hide the key.
    """
    found = _SUM.search(raw)
    if found is None:
        return None if OWN_SUM.encode() not in raw else False
    return _digest(raw[: found.start()]).encode() == (found[1] or found[2])


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
