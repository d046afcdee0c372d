"""Which strings of digits and letters, without separators, are identity numbers: by date and check digits.

Rules: the issuing authorities' published formats, as collected in OECD's "Tax identification numbers" and the European
Commission's TIN specifications.
"""

from __future__ import annotations

import re

from salamandra_data.curation.check_digits import luhn, verhoeff, weighted


def _date(year: int, month: int, day: int) -> bool:
    return 0 <= year <= 99 and 1 <= month <= 12 and 1 <= day <= 31


def _yymmdd(digits: str) -> bool:
    return _date(int(digits[0:2]), int(digits[2:4]), int(digits[4:6]))


def _ddmmyy(digits: str) -> bool:
    return _date(int(digits[4:6]), int(digits[2:4]), int(digits[0:2]))


def spanish(value: str) -> bool:
    """DNI and NIE: a letter by the number modulo 23."""
    value = value.upper()
    number = value[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == value[-1]


def french(value: str) -> bool:
    """NIR: 13 digits, of which a department may be 2A or 2B, and 97 less their remainder by 97.

    The month is 1 to 12, or from 20 to 42 or from 50 on where it is not known.
    """
    month = int(value[3:5])
    if not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return False
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
    rest = 11 - weighted(value[:8], range(9, 1, -1)) % 11
    return (0 if rest > 9 else rest) == int(value[8])


def polish(value: str) -> bool:
    """PESEL: date with the century in the month, and a digit modulo 10."""
    month = int(value[2:4]) % 20
    check = -weighted(value[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10
    return _date(int(value[:2]), month, int(value[4:6])) and check == int(value[10])


def bulgarian(value: str) -> bool:
    """EGN: date with the century in the month, and a digit modulo 11."""
    month = int(value[2:4]) % 20
    check = weighted(value[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10
    return _date(int(value[:2]), month, int(value[4:6])) and check == int(value[9])


def romanian(value: str) -> bool:
    """CNP: sex and century, date, county, and a digit modulo 11."""
    rest = weighted(value[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
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
    first = -weighted(value[:9], (3, 7, 6, 1, 8, 9, 4, 5, 2)) % 11
    second = -weighted(value[:10], (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return _ddmmyy(value) and first == int(value[9]) and second == int(value[10])


def danish(value: str) -> bool:
    """CPR: a date; numbers since 2007 have no check digit."""
    return _ddmmyy(value)


def baltic(value: str) -> bool:
    """Isikukood of Estonia and asmens kodas of Lithuania: century, date, and a digit modulo 11."""
    rest = weighted(value[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(value[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return value[0] in "123456" and _yymmdd(value[1:7]) and rest == int(value[10])


def latvian(value: str) -> bool:
    """Personas kods of before 2017: date, and a digit modulo 11."""
    return _ddmmyy(value) and (1101 - weighted(value[:10], (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))) % 11 == int(
        value[10]
    )


def czechoslovak(value: str) -> bool:
    """Rodné číslo of ten digits: date, months of women by 50 more, divisible by 11, or 0 for a rest of 10."""
    month = int(value[2:4]) % 50 % 20
    check = int(value[:9]) % 11 % 10
    return _date(int(value[:2]), month, int(value[4:6])) and check == int(value[9])


def yugoslav(value: str) -> bool:
    """JMBG and EMŠO: date, region, number, and a digit modulo 11."""
    check = -weighted(value[:12], (7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11 % 10
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
    return weighted(value, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def hungarian(value: str) -> bool:
    """TAJ: a digit by threes and sevens modulo 10."""
    return weighted(value[:8], (3, 7) * 4) % 10 == int(value[8])


def irish(value: str) -> bool:
    """PPS: a letter modulo 23, counting a second letter."""
    value = value.upper()
    second = "WABCDEFGHIJKLMNOPQRSTUV".index(value[8]) if len(value) == 9 and value[8] < "W" else 0
    total = weighted(value[:7], range(8, 1, -1)) + 9 * second
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == value[7]


def russian(value: str) -> bool:
    """SNILS: two digits by the sum modulo 101."""
    return weighted(value[:9], range(9, 0, -1)) % 101 % 100 == int(value[9:])


def ukrainian(value: str) -> bool:
    """Taxpayer's number: a digit modulo 11."""
    return weighted(value[:9], (-1, 5, 7, 9, 4, 6, 10, 5, 7)) % 11 % 10 == int(value[9])


def british(value: str) -> bool:
    """National Insurance number: prefixes that are never given out."""
    prefix = value[:2].upper()
    return prefix not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def austrian(value: str) -> bool:
    """Sozialversicherungsnummer: number, digit modulo 11, and a date, of which the month may run past 12."""
    check = weighted(value[:3] + value[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11
    return value[0] != "0" and check == int(value[3]) and _date(0, min(int(value[6:8]), 12), int(value[4:6]))


def luxembourgish(value: str) -> bool:
    """Matricule: date, number, a Luhn and a Verhoeff digit, both over the first eleven."""
    date = 18 <= int(value[:2]) <= 20 and _yymmdd(value[2:8])
    return date and luhn(value[:12]) and verhoeff(value[:11] + value[12])


def cypriot(value: str) -> bool:
    """TIC: a letter modulo 26, digits in odd places by a table."""
    total = sum(_ODD[digit] if place % 2 == 0 else int(digit) for place, digit in enumerate(value[:8]))
    return value[0] in "09" and chr(65 + total % 26) == value[8].upper()


def maltese(value: str) -> bool:
    """Identity card number: a letter for the register, and no check."""
    return value[-1].upper() in "ABGHLMPZ"
