"""Identity numbers of persons in the covered countries, told from other digits by date and check digits.

Each kind is a pattern and a check. Where a check alone would take one number of eleven for an identity, a word that
announces it must stand shortly before. Rules: the issuing authorities' published formats, as collected in OECD's "Tax
identification numbers" and the European Commission's TIN specifications.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BEFORE = 40  # characters in which an announcing word is looked for


@dataclass(frozen=True)
class IdentityNumber:
    """One country's number.

    Attributes:
        country: ISO 3166 code.
        pattern: what it looks like.
        check: whether digits and letters, without separators, are one.
        announced_by: a pattern that must match shortly before, where the check is weak.
    """

    country: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    announced_by: re.Pattern[str] | None = None

    def is_at(self, text: str, match: re.Match[str]) -> bool:
        """Whether a match of the pattern is such a number."""
        if not self.check(re.sub(r"[\s./+-]", "", match[0])):
            return False
        if self.announced_by is None:
            return True
        return self.announced_by.search(text, max(0, match.start() - _BEFORE), match.start()) is not None


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _date(year: int, month: int, day: int) -> bool:
    return 0 <= year <= 99 and 1 <= month <= 12 and 1 <= day <= 31


def _yymmdd(digits: str) -> bool:
    return _date(int(digits[0:2]), int(digits[2:4]), int(digits[4:6]))


def _ddmmyy(digits: str) -> bool:
    return _date(int(digits[4:6]), int(digits[2:4]), int(digits[0:2]))


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check of those before (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def mod_11_10(digits: str) -> bool:
    """Whether the last digit is the check of ISO/IEC 7064, MOD 11,10."""
    rest = 10
    for digit in digits[:-1]:
        rest = (rest + int(digit)) % 10 or 10
        rest = rest * 2 % 11
    return (11 - rest) % 10 == int(digits[-1])


def spanish(value: str) -> bool:
    """DNI and NIE: a letter by the number modulo 23."""
    value = value.upper()
    number = value[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]


def french(value: str) -> bool:
    """NIR: 13 digits, of which a department may be 2A or 2B, and 97 less their remainder by 97."""
    number = value.upper().replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number[:13]) % 97 == int(number[13:])


_ODD_DIGITS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_LETTERS = (*_ODD_DIGITS, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (*_ODD_DIGITS, *_ODD_LETTERS), strict=True))


def italian(value: str) -> bool:
    """Codice fiscale: a letter by the sum of values in odd and even places."""
    value = value.upper()
    total = 0
    for place, character in enumerate(value[:15]):
        even = int(character) if character.isdigit() else ord(character) - 65
        total += _ODD[character] if place % 2 == 0 else even
    return chr(65 + total % 26) == value[15]


def portuguese(value: str) -> bool:
    """NIF: modulo 11 over nine digits."""
    rest = 11 - _weighted(value[:8], range(9, 1, -1)) % 11
    return (0 if rest > 9 else rest) == int(value[8])


def polish(value: str) -> bool:
    """PESEL: date with the century in the month, and a digit modulo 10."""
    month = int(value[2:4]) % 20
    check = -_weighted(value[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10
    return _date(int(value[:2]), month, int(value[4:6])) and check == int(value[10])


def bulgarian(value: str) -> bool:
    """EGN: date with the century in the month, and a digit modulo 11."""
    month = int(value[2:4]) % 20
    check = _weighted(value[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10
    return _date(int(value[:2]), month, int(value[4:6])) and check == int(value[9])


def romanian(value: str) -> bool:
    """CNP: sex and century, date, county, and a digit modulo 11."""
    rest = _weighted(value[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return value[0] != "0" and _yymmdd(value[1:7]) and (1 if rest == 10 else rest) == int(value[12])


def finnish(value: str) -> bool:
    """Henkilötunnus, its century mark gone: date, number, and a character by the number modulo 31."""
    digits = re.sub(r"\D", "", value[:-1])
    return _ddmmyy(digits) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == value[-1].upper()


def swedish(value: str) -> bool:
    """Personnummer: date and Luhn digit over its last ten digits."""
    return _yymmdd(value[-10:]) and luhn(value[-10:])


def norwegian(value: str) -> bool:
    """Fødselsnummer: date and two digits modulo 11."""
    first = -_weighted(value[:9], (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -_weighted(value[:10], (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return _ddmmyy(value) and first == int(value[9]) and second == int(value[10])


def danish(value: str) -> bool:
    """CPR: a date; numbers since 2007 have no check digit."""
    return _ddmmyy(value)


def baltic(value: str) -> bool:
    """Isikukood of Estonia and asmens kodas of Lithuania: century, date, and a digit modulo 11."""
    rest = _weighted(value[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = _weighted(value[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return value[0] in "123456" and _yymmdd(value[1:7]) and rest == int(value[10])


def latvian(value: str) -> bool:
    """Personas kods of before 2017: date, and a digit modulo 11."""
    return _ddmmyy(value) and (1101 - _weighted(value[:10], (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))) % 11 == int(
        value[10]
    )


def czechoslovak(value: str) -> bool:
    """Rodné číslo of ten digits: date, months of women by 50 more, divisible by 11."""
    month = int(value[2:4]) % 50 % 20
    return _date(int(value[:2]), month, int(value[4:6])) and int(value) % 11 == 0


def yugoslav(value: str) -> bool:
    """JMBG and EMŠO: date, region, number, and a digit modulo 11."""
    check = -_weighted(value[:12], (7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return _date(int(value[4:7]) % 100, int(value[2:4]), int(value[:2])) and check == int(value[12])


def greek(value: str) -> bool:
    """AMKA: date and Luhn digit."""
    return _ddmmyy(value) and luhn(value)


def belgian(value: str) -> bool:
    """Rijksregisternummer: date, number, and 97 less their remainder, with a 2 in front from 2000 on."""
    check = int(value[9:])
    return _yymmdd(value) and check in (97 - int(value[:9]) % 97, 97 - int("2" + value[:9]) % 97)


def dutch(value: str) -> bool:
    """BSN: the eleven-proof."""
    return _weighted(value, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def hungarian(value: str) -> bool:
    """TAJ: a digit by threes and sevens modulo 10."""
    return _weighted(value[:8], (3, 7) * 4) % 10 == int(value[8])


def irish(value: str) -> bool:
    """PPS: a letter modulo 23, counting a second letter."""
    value = value.upper()
    second = "WABCDEFGHIJKLMNOPQRSTUV".index(value[8]) if len(value) == 9 and value[8] < "W" else 0
    total = _weighted(value[:7], range(8, 1, -1)) + 9 * second
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == value[7]


def russian(value: str) -> bool:
    """SNILS: two digits by the sum modulo 101."""
    return _weighted(value[:9], range(9, 0, -1)) % 101 % 100 == int(value[9:])


def ukrainian(value: str) -> bool:
    """Taxpayer's number: a digit modulo 11."""
    return _weighted(value[:9], (-1, 5, 7, 9, 4, 6, 10, 5, 7)) % 11 % 10 == int(value[9])


def british(value: str) -> bool:
    """National Insurance number: prefixes that are never given out."""
    prefix = value[:2].upper()
    return prefix not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _number(
    country: str, pattern: str, check: Callable[[str], bool], announced_by: str | None = None
) -> IdentityNumber:
    return IdentityNumber(
        country,
        re.compile(rf"(?<![\w.,-]){pattern}(?!\w)", re.IGNORECASE),
        check,
        re.compile(announced_by, re.IGNORECASE) if announced_by else None,
    )


IDENTITY_NUMBERS = (
    _number("ES", r"(?:\d{8}|[XYZ]-?\d{7})-?[A-Z]", spanish),
    _number("FR", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", french),
    _number("IT", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", italian),
    _number("PT", r"\d{3} ?\d{3} ?\d{3}", portuguese, r"\bNIF\b|contribuinte"),
    _number("PL", r"\d{11}", polish),
    _number("BG", r"\d{10}", bulgarian, r"ЕГН|\bEGN\b"),
    _number("RO", r"[1-9]\d{12}", romanian),
    _number("FI", r"\d{6}[-+ABCDEFUVWXY]\d{3}[0-9A-Y]", finnish),
    _number("SE", r"(?:19|20)?\d{6}[-+]\d{4}", swedish),
    _number("NO", r"\d{6} ?\d{5}", norwegian),
    _number("DK", r"\d{6}-\d{4}", danish, r"\bCPR\b|personnummer"),
    _number("EE/LT", r"[1-6]\d{10}", baltic),
    _number("LV", r"\d{6}-\d{5}", latvian),
    _number("CZ/SK", r"\d{6}/\d{4}", czechoslovak),
    _number("HR/RS/SI", r"\d{13}", yugoslav),
    _number("HR", r"\d{11}", mod_11_10, r"\bOIB\b"),
    _number("DE", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", mod_11_10, r"steuer-?\s?(id|ident)"),
    _number("GR", r"\d{11}", greek, r"ΑΜΚΑ|\bAMKA\b"),
    _number("BE", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", belgian),
    _number("NL", r"\d{9}", dutch, r"\bBSN\b|burgerservice|sofi"),
    _number("HU", r"\d{3}[ -]?\d{3}[ -]?\d{3}", hungarian, r"\bTAJ\b"),
    _number("IE", r"\d{7}[A-W][A-IW]?", irish, r"\bPPS"),
    _number("RU", r"\d{3}-\d{3}-\d{3}[ -]\d{2}", russian),
    _number("UA", r"\d{10}", ukrainian, r"ІПН|РНОКПП|\bІНН\b"),
    _number(
        "GB",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        british,
        r"insurance|\bNINO?\b",
    ),
)
