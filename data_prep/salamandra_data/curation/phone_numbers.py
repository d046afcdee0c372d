"""Finding phone numbers: international ones by country code and length, others behind a word that announces them."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Digits of a national number, without the 0 dialled before it: the numbering plans under ITU-T E.164.
_NATIONAL_DIGITS = {
    "1": (10, 10), "7": (10, 10), "30": (10, 10), "31": (9, 9), "32": (8, 9), "33": (9, 9), "34": (9, 9), "36": (8, 9),
    "39": (8, 11), "40": (9, 9), "41": (9, 9), "43": (8, 13), "44": (9, 10), "45": (8, 8), "46": (7, 10), "47": (8, 8),
    "48": (9, 9), "49": (8, 12), "350": (8, 8), "351": (9, 9), "352": (6, 11), "353": (7, 9), "354": (7, 9),
    "355": (8, 9), "356": (8, 8), "357": (8, 8), "358": (6, 12), "359": (7, 9), "370": (8, 8), "371": (8, 8),
    "372": (7, 8), "373": (8, 8), "375": (9, 9), "376": (6, 9), "377": (8, 9), "378": (6, 10), "380": (9, 9),
    "381": (7, 9), "382": (8, 8), "383": (8, 8), "385": (8, 9), "386": (8, 8), "387": (8, 9), "389": (8, 8),
    "420": (9, 9), "421": (9, 9), "423": (7, 9),
}  # fmt: skip
_ELSEWHERE = re.compile(r"2[07]|5[1-8]|6[0-6]|8[12346]|9[0-58]|(?:2[1-689]|50|59|6[7-9]|8[058]|9[679])\d|374")
_ELSEWHERE_DIGITS = (8, 11)
_ZERO_BELONGS = ("39", "378")
_MOST_GROUPS = 7
_INTERNATIONAL = re.compile(
    r"(?<![\w.,/+-])\(?(?P<prefix>\+|00 ?)[1-9](?:[ \u00a0\u202f./()-]{0,2}\d){7,16}(?![\w]|[.,-]\d)"
)
_ANNOUNCED = re.compile(
    r"(?<![\w.@/-])(?:tel|tél|tlf|tfno|fax|faks|puh|mob|gsm|(?:tele?)?phone|téléphone|telef[oóòō]n\w*|telefoa|puhelin\w*"
    r"|ffôn|fón|guthán|tālr\w*|móvil|mòbil|mobile?|mobiel|тел|телефон\w*|моб|факс|τηλ|τηλέφωνο|κιν|φαξ)"
    r"[.:)/\s]{1,4}(?P<number>\(?\d[\d \u00a0\u202f()./-]{6,16}\d)(?!\w)",
    re.IGNORECASE,
)
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_DATES = re.compile(
    rf"(?:\(?(?:{_DAY}[./-]{_MONTH}[./-](?:{_YEAR}|\d\d)|{_YEAR}[./-]{_MONTH}[./-]{_DAY}|{_YEAR})\)?[ ./-]*)+"
)
_LAST_GROUP = re.compile(r"[ \u00a0\u202f]\d+$")
_BEFORE_NUMBERS = ("'", '"', ":", ">", "(")


def phone_numbers(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Where phone numbers start and end in a text; in program text, only what has a plus sign and is no constant."""
    for match in _INTERNATIONAL.finditer(text):
        if code and (
            match["prefix"] != "+" or text[match.start() - 1 : match.start()] not in _BEFORE_NUMBERS
        ):
            continue
        number = _shortened(match[0], match["prefix"])
        if number:
            yield match.start(), match.start() + len(number)
    if code:
        return
    for match in _ANNOUNCED.finditer(text):
        digits = sum(map(str.isdigit, match["number"]))
        if 7 <= digits <= 15 and _DATES.fullmatch(match["number"]) is None:
            yield match.span("number")


def _shortened(number: str, prefix: str) -> str:
    """``number`` without the groups at its end that belong to what follows; empty if no beginning of it is one."""
    while not is_international(number, prefix):
        last = _LAST_GROUP.search(number)
        if last is None:
            return ""
        number = number[: last.start()]
    return number


def is_international(number: str, prefix: str = "+") -> bool:
    """Whether a number that starts with ``prefix`` and a country code has the length that the country's have."""
    groups = re.findall(r"\d+", number.replace("(0)", "").partition(prefix)[2])
    if not 0 < len(groups) <= _MOST_GROUPS:
        return False
    areas = 2 if len(groups[0]) <= 3 else 1  # only these groups may have one digit, as in +33 1 42 68 53 00
    if any(len(group) == 1 for group in groups[areas:]):
        return False
    digits = "".join(groups)
    code = next((digits[:size] for size in (1, 2, 3) if digits[:size] in _NATIONAL_DIGITS), "")
    if not code:
        elsewhere = _ELSEWHERE.match(digits)
        if elsewhere is None:
            return False
        code = elsewhere[0]
    national = digits[len(code) :]
    if national.startswith("0") and code not in _ZERO_BELONGS:
        return False
    if code == "1" and (national[0:1] < "2" or national[3:4] < "2"):  # area and exchange, North America
        return False
    least, most = _NATIONAL_DIGITS.get(code, _ELSEWHERE_DIGITS)
    return least <= len(national) <= most and not national.endswith("000000")
