"""Keeping credentials that stand in URLs out of whatever is shown or kept."""

from __future__ import annotations

import re

HIDDEN = "***"

_USER = re.compile(r"://([^/\s@?#'\"<>]*(?:@[^/\s@?#'\"<>]*)*)@")
_SCHEME = re.compile(r"[a-z0-9+.-]*\Z", re.IGNORECASE)
_MOST_SCHEME = 32
_NO_USERS = ("abfs", "abfss", "github", "git")
"""Schemes with something else before the ``@``: a container, a repository."""
_WEB = ("http", "https")
"""Whose servers take a token as the name of a user."""
_VALUE = re.compile(r"([?&])([^=&?\s'\"<>]*)=([^&\s'\"<>]+)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_OPENS = re.compile(
    r"(?:api|access|account|auth|aws|bearer|client|id|private|refresh|secret|security|session|shared|user)*"
    r"(?:signature|sig|credentials?|token|secret|password|passwd|passphrase|passw?|pwd|key|auth|authorization|sas"
    r"|policy|jwt)(?:id)?"
)


def without_credentials(text: str) -> str:
    """The text, with ``***`` for users with passwords in URLs and for values that sign or open them.

    Those are ``https://USER:PASSWORD@host``, ``https://TOKEN@host``, and in what follows a ``?`` the values in whose
    name signature, token, key, secret and the like is a word: of ``accessToken``, not of ``tokenizer``. The only place
    that decides what is a credential: errors, warnings, reports, manifests and names of remote places all ask it. A
    text that was through it stays as it is.
    """
    if "://" not in text and "=" not in text:
        return text
    text = _USER.sub(lambda found: f"://{HIDDEN}@" if _is_secret(found) else found[0], text)
    return _VALUE.sub(lambda found: f"{found[1]}{found[2]}={HIDDEN}" if _opens(found[2]) else found[0], text)


def holds_credentials(url: str) -> bool:
    """Whether a URL has a password, a token or a signature in it, so that no file may keep it."""
    return any(map(_is_secret, _USER.finditer(url))) or any(
        _opens(found[2]) for found in _VALUE.finditer(url)
    )


def _is_secret(found: re.Match[str]) -> bool:
    """Whether what stands between ``://`` and ``@`` is."""
    before = _SCHEME.search(found.string, max(0, found.start() - _MOST_SCHEME), found.start())
    scheme = before[0].lower() if before else ""
    if scheme in _NO_USERS:
        return False
    return ":" in found[1] or scheme.rpartition("+")[2] in _WEB


def _opens(name: str) -> bool:
    """Whether the value of that name does, by the words of the name."""
    words = {word.lower() for word in _WORD.findall(name)} | set(re.split(r"[^a-z]+", name.lower()))
    return any(map(_OPENS.fullmatch, words))
