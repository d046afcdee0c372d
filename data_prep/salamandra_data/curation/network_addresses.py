"""Finding e-mail addresses and public IP addresses, and telling them from program text that looks like them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-][\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+([^\W\d_]{2,24})(?![\w@-])"
)
_FILE_SUFFIXES = re.compile(
    r"bmp|css|gif|gz|html?|ico|jpe?g|js|jsx|json|mp[34]|pdf|png|svg|tar|tiff?|txt|webp|woff|xml|ya?ml",
    re.IGNORECASE,
)
_KNOWN_DOMAINS = re.compile(
    r"[a-z]{2}|app|asia|biz|bzh|cat|com|coop|dev|edu|email|eus|gal|gov|info|int|mil|mobi|museum|name|net|online|org|pro|tel"
)
_LEAST_IPV4_DIGITS = 7
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])")
_LEAST_IPV6_GROUPS = 3


def email_addresses(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Where e-mail addresses start and end in a text.

    Names of files (``icon@2x.png``) are none, nor are products of matrices (``q@k.transpose(0, 1)``): what is called,
    and in program text whatever else, must end in a country's or another well-known domain.
    """
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        known = _KNOWN_DOMAINS.fullmatch(match[1]) is not None
        called = text[match.end() : match.end() + 1] in ("(", "[")
        if ".." in match[0] or _FILE_SUFFIXES.fullmatch(match[1]) or (called and (code or not known)):
            continue
        if known or not code:
            yield match.span()


def ip_addresses(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Where IP addresses that can be a person's start and end in a text."""
    for pattern in (_IPV4, _IPV6):
        yield from (match.span() for match in pattern.finditer(text) if is_public_address(match[0]))


def is_public_address(value: str) -> bool:
    """Whether an IP address can be a person's; private and documentation addresses are not.

    Nor is an IPv4 address of six digits or fewer, such as the number of a section or a version, 12.3.3.1, nor an IPv6
    address outside 2000::/3, or of two groups, such as a slice, 2000::2.
    """
    if ":" in value:
        if value[0] not in "23" or sum(map(bool, value.split(":"))) < _LEAST_IPV6_GROUPS:
            return False
    elif sum(map(str.isdigit, value)) < _LEAST_IPV4_DIGITS:
        return False
    try:
        return ipaddress.ip_address(value).is_global
    except ValueError:
        return False
