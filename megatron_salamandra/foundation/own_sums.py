"""Files that hold a checksum of themselves, so that a flipped bit in them is seen by whoever reads them.

The checksum is of every byte before it: it stands last, as one more key of the JSON object or YAML mapping. The first
key says that it follows, so that a file that was cut short is not taken for one that never had it. It is against
accidents; who changes such a file on purpose takes both keys out, or writes another checksum.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

OWN_SUM = "own_sha256"
"""The last key."""
ANNOUNCEMENT = "ends_with"
"""The first key, whose value is the name of the last one."""

_JSON_END = b"\n}\n"
_JSON_START = re.compile(rb"\{\n *")
_COMMENTS = re.compile(rb"(?:#.*\n)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(rb',?\n *"own_sha256": "([0-9a-f]{64})"\n\}\n\Z|(?<=\n)own_sha256: ([0-9a-f]{64})\n\Z')


def with_own_sum(text: bytes) -> bytes:
    """The text of an indented JSON object with keys, or of a block YAML mapping, with its checksum, and announced.

    Args:
        text: ends with a line break; comments of YAML stand before everything else.
    """
    if text.endswith(_JSON_END):
        start = _JSON_START.match(text)
        if start is None:
            raise ValueError("not an indented JSON object")
        announced = start[0] + f'"{ANNOUNCEMENT}": "{OWN_SUM}",'.encode() + start[0][1:] + text[start.end() :]
        body = announced.removesuffix(_JSON_END)
        return body + f',\n  "{OWN_SUM}": "{_digest(body)}"'.encode() + _JSON_END
    comments = _COMMENTS.match(text)
    place = comments.end() if comments else 0
    body = text[:place] + f"{ANNOUNCEMENT}: {OWN_SUM}\n".encode() + text[place:]
    return body + f"{OWN_SUM}: {_digest(body)}\n".encode()


def own_sum_holds(raw: bytes) -> bool | None:
    """Whether the checksum in a file is that of the file, and there if it was announced; None if neither is there.

    Readers also refuse keys that they do not know, so that no single flip can hide the keys.
    """
    found = _SUM.search(raw)
    if found is None:
        return None if OWN_SUM.encode() not in raw else False
    return _digest(raw[: found.start()]).encode() == (found[1] or found[2])


def drop_own_sum(values: dict[str, Any]) -> None:
    """Take the two keys out of what was read.

    Raises:
        ValueError: something else than the checksum is announced.
    """
    values.pop(OWN_SUM, None)
    announced = values.pop(ANNOUNCEMENT, OWN_SUM)
    if announced != OWN_SUM:
        raise ValueError(f"{ANNOUNCEMENT} = {announced!r:.40}, expected {OWN_SUM!r}")


def is_digest(value: object) -> bool:
    """Whether it is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
