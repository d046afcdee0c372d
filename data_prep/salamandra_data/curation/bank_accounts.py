"""Finding bank accounts: IBANs, by their country's length and check digits (ISO 13616)."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LENGTHS = {
    "NO": 15, "BE": 16, "DK": 18, "FI": 18, "FO": 18, "GL": 18, "NL": 18, "MK": 19, "SI": 19, "AT": 20, "BA": 20,
    "EE": 20, "LT": 20, "LU": 20, "XK": 20, "CH": 21, "HR": 21, "LI": 21, "LV": 21, "BG": 22, "DE": 22, "GB": 22,
    "GE": 22, "IE": 22, "ME": 22, "RS": 22, "VA": 22, "GI": 23, "AD": 24, "CZ": 24, "ES": 24, "MD": 24, "RO": 24,
    "SE": 24, "SK": 24, "PT": 25, "IS": 26, "TR": 26, "FR": 27, "GR": 27, "IT": 27, "MC": 27, "SM": 27, "AL": 28,
    "BY": 28, "CY": 28, "HU": 28, "PL": 28, "UA": 29, "MT": 31,
}  # fmt: skip
_SEPARATOR = "[ \u00a0\u202f-]"
_SEPARATORS = re.compile(_SEPARATOR)
_START = re.compile(r"(?<!\w)([A-Za-z]{2})\d{2}")
# Each country's ends where its accounts do, whatever word or number follows.
_REST = {
    length: re.compile(rf"(?:{_SEPARATOR}?[A-Z0-9]){{{length - 4}}}(?!\w)", re.IGNORECASE | re.ASCII)
    for length in set(_LENGTHS.values())
}
_LEAST_DIGITS = 10  # the Dutch have so many, and words in a row have not


def bank_accounts(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Where IBANs start and end in a text, in groups or not, in upper or lower case."""
    for start in _START.finditer(text):
        length = _LENGTHS.get(start[1].upper())
        if length is not None:
            rest = _REST[length].match(text, start.end())
            if rest is not None and is_iban(start[0] + rest[0]):
                yield start.start(), rest.end()


def is_iban(value: str) -> bool:
    """Whether length and check digits are those of an account: the rearranged number is 1 modulo 97."""
    plain = _SEPARATORS.sub("", value).upper()
    if len(plain) != _LENGTHS.get(plain[:2]) or sum(map(str.isdigit, plain)) < _LEAST_DIGITS:
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1
