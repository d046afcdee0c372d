"""Masking what identifies a person: e-mail and IP addresses, phone numbers, IBANs, national identity numbers."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

from salamandra_data.curation.national_ids import IDENTITY_NUMBERS

MARKS = {"email": "<EMAIL>", "iban": "<IBAN>", "id": "<ID>", "ip": "<IP>", "phone": "<PHONE>"}
"""What takes the place of each kind."""

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.!#$%&'*+=?^`{|}~-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])"
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_LEAST_IPV4_DIGITS = 7
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}(?![\w]|[.,-]\d)"
)
_ANNOUNCED_PHONE = re.compile(
    r"((?:\btel|\btél|\btlf|\bfax|phone|telef[oóòō]n\w*|telefon\w*|τηλ|тел|puhelin|telefoa)[.:)\s]{1,4})"
    r"(\(?\d[\d ()./-]{6,16}\d)(?!\w)",
    re.IGNORECASE,
)
_IBAN_LENGTHS = {
    "AT": 20,
    "BE": 16,
    "BG": 22,
    "CH": 21,
    "CY": 28,
    "CZ": 24,
    "DE": 22,
    "DK": 18,
    "EE": 20,
    "ES": 24,
    "FI": 18,
    "FR": 27,
    "GB": 22,
    "GR": 27,
    "HR": 21,
    "HU": 28,
    "IE": 22,
    "IS": 26,
    "IT": 27,
    "LT": 20,
    "LU": 20,
    "LV": 21,
    "MT": 31,
    "NL": 18,
    "NO": 15,
    "PL": 28,
    "PT": 25,
    "RO": 24,
    "RS": 22,
    "SE": 24,
    "SI": 19,
    "SK": 24,
    "UA": 29,
}


def mask(text: str) -> tuple[str, Counter[str]]:
    """A text with marks in place of personal data, and how many of each kind."""
    found: Counter[str] = Counter()
    if "@" in text:
        text = _replaced(text, _EMAIL, "email", found, lambda match: ".." not in match[0])
    if not any(character.isdigit() for character in text):
        return text, found
    text = _replaced(text, _IBAN, "iban", found, lambda match: is_iban(match[0]))
    for number in IDENTITY_NUMBERS:
        before = text
        text = _replaced(text, number.pattern, "id", found, lambda match: number.is_at(before, match))  # noqa: B023
    text = _replaced(text, _PHONE, "phone", found, lambda match: 8 <= _digits(match[0]) <= 15)
    text = _ANNOUNCED_PHONE.sub(lambda match: _announced(match, found), text)
    for pattern in (_IPV4, _IPV6):
        text = _replaced(text, pattern, "ip", found, lambda match: is_public_address(match[0]))
    return text, found


def is_iban(value: str) -> bool:
    """Whether length and check digits are those of an account (ISO 13616: the rearranged number is 1 modulo 97)."""
    plain = value.replace(" ", "")
    if len(plain) != _IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def is_public_address(value: str) -> bool:
    """Whether an IP address can be a person's; private and documentation addresses are not.

    Nor is one of six digits or fewer, such as the number of a section or a version, 12.3.3.1.
    """
    if ":" not in value and _digits(value) < _LEAST_IPV4_DIGITS:
        return False
    try:
        return ipaddress.ip_address(value).is_global
    except ValueError:
        return False


def _digits(value: str) -> int:
    return sum(character.isdigit() for character in value)


def _announced(match: re.Match[str], found: Counter[str]) -> str:
    if not 7 <= _digits(match[2]) <= 15:
        return match[0]
    found["phone"] += 1
    return match[1] + MARKS["phone"]


def _replaced(
    text: str,
    pattern: re.Pattern[str],
    kind: str,
    found: Counter[str],
    is_one: Callable[[re.Match[str]], bool],
) -> str:
    def replacement(match: re.Match[str]) -> str:
        if not is_one(match):
            return match[0]
        found[kind] += 1
        return MARKS[kind]

    return pattern.sub(replacement, text)
