"""Masking what identifies a person: e-mail and IP addresses, phone numbers, IBANs, national identity numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from salamandra_data.curation.bank_accounts import bank_accounts
from salamandra_data.curation.national_ids import identity_numbers
from salamandra_data.curation.network_addresses import email_addresses, ip_addresses
from salamandra_data.curation.phone_numbers import phone_numbers

MARKS = {"email": "<EMAIL>", "iban": "<IBAN>", "id": "<ID>", "phone": "<PHONE>", "ip": "<IP>"}
"""What takes the place of each kind."""

_NUMBERS = {"iban": bank_accounts, "id": identity_numbers, "phone": phone_numbers, "ip": ip_addresses}
# In each kind: five digits in a row or nearly so, what stands amid an Italian identity number, or groups of IPv6.
_NUMBER = re.compile(r"(?:\d\W{0,2}){5}|\d\d[A-Z]\d\d[A-Z]\d|[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:")


def mask(text: str, *, code: bool = False) -> tuple[str, Counter[str]]:
    """A text with marks in place of personal data, and how many of each kind.

    Args:
        text: any.
        code: whether it is program text, whose slices, constants and products of matrices must stay.
    """
    found: Counter[str] = Counter()
    text = _masked(text, "email", email_addresses(text, code=code), found)
    if _NUMBER.search(text) is not None:
        for kind, find in _NUMBERS.items():
            text = _masked(text, kind, find(text, code=code), found)
    return text, found


def _masked(text: str, kind: str, spans: Iterable[tuple[int, int]], found: Counter[str]) -> str:
    parts: list[str] = []
    done = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            parts += [text[done:start], MARKS[kind]]
            done = end
            found[kind] += 1
    return "".join([*parts, text[done:]]) if parts else text
