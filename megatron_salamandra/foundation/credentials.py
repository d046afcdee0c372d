"""Keeping credentials that stand in URLs out of whatever is shown or kept."""

from __future__ import annotations

import re

HIDDEN = "***"

_USER = re.compile(r"(?<=://)[^/\s@?#'\"<>]*(?:@[^/\s@?#'\"<>]*)*@")
_VALUE = re.compile(
    r"(?i)([?&][^=&\s'\"<>]*(?:signature|credential|token|secret|passw|pwd|key|sig|auth|sas|policy)[^=&\s'\"<>]*=)"
    r"[^&\s'\"<>]+"
)


def without_credentials(text: str) -> str:
    """The text, with ``***`` for users and passwords of URLs and for values that sign or open them.

    Those are ``https://USER:PASSWORD@host``, and in what follows a ``?`` the values whose name has signature, token,
    key, secret and the like in it. The only place that decides what is a credential: errors, warnings, reports,
    manifests and names of remote places all ask it. A text that was through it stays as it is.
    """
    if "://" not in text and "=" not in text:
        return text
    return _VALUE.sub(rf"\g<1>{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
