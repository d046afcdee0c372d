"""Identity numbers of persons in the covered countries.

Each kind is a pattern and a check. A number that is nothing but digits counts unannounced only if its check takes fewer
than one in a thousand of them for an identity; other kinds need a word shortly before, such as *PESEL*. So do those
whose punctuation is that of case numbers and dates, and in program text all of them.

Checks are python-stdnum's where it has one that takes no number that ours would not take, but for Belgium, where it
knows numbers of unknown birthdays. The others are by the
issuing authorities' published formats, as collected in OECD's "Tax identification numbers" and the European
Commission's TIN specifications.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stdnum import luhn, verhoeff
from stdnum.fi import hetu
from stdnum.se import personnummer

_BEFORE = 40  # characters in which an announcing word is looked for
_SEPARATORS = re.compile(r"[\s./+-]")
_SPACE = "[ \u00a0\u202f]"
# In each kind: five digits in a row or nearly so, or what stands amid an Italian number.
_LEAST = re.compile(r"(?:\d[^\w\n]?){5}|\d\d[A-Z]\d\d[A-Z]\d")


@dataclass(frozen=True)
class IdentityNumber:
    """One country's number.

    Attributes:
        country: ISO 3166 code.
        pattern: what it looks like.
        check: whether what the pattern matches is one.
        announced_by: a pattern that must match shortly before, where the check is weak.
    """

    country: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    announced_by: re.Pattern[str] | None = None

    def is_at(self, text: str, match: re.Match[str]) -> bool:
        """Whether a match of the pattern is such a number."""
        before = max(0, match.start() - _BEFORE)
        if self.announced_by is not None and not self.announced_by.search(text, before, match.start()):
            return False
        return self.check(match[0])


def identity_numbers(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Where identity numbers start and end in a text; in program text, announced ones only."""
    end = 0
    for least in _LEAST.finditer(text):
        if least.start() < end:
            continue
        # Patterns are costly, and lines with numbers that long are few.
        start = text.rfind("\n", 0, least.start()) + 1
        end = text.find("\n", least.end())
        end = len(text) if end < 0 else end
        for number in IDENTITY_NUMBERS:
            if number.announced_by is not None or not code:
                yield from (
                    match.span()
                    for match in number.pattern.finditer(text, start, end)
                    if number.is_at(text, match)
                )


def _number(
    country: str, pattern: str, check: Callable[[str], bool], announced_by: str | None = None
) -> IdentityNumber:
    """A row of the table; a space in ``pattern`` stands for spaces of any width."""
    return IdentityNumber(
        country,
        re.compile(rf"(?<![\w.,-]){pattern.replace(' ', _SPACE)}(?!\w)"),
        check,
        re.compile(announced_by, re.IGNORECASE) if announced_by else None,
    )


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of each digit times its weight; what is longer is cut."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _is_date(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31


def _plain(check: Callable[[str], bool]) -> Callable[[str], bool]:
    """A check of ours, given digits and letters without separators."""
    return lambda value: check(_SEPARATORS.sub("", value))


def _stdnum(*modules: str) -> Callable[[str], bool]:
    """Whether one of python-stdnum's modules takes a number, without separators."""
    checks = [importlib.import_module(f"stdnum.{module}").is_valid for module in modules]
    return _plain(lambda value: any(check(value) for check in checks))


def _french(value: str) -> bool:
    """NIR: 13 digits, of which a department may be 2A or 2B, and 97 less their remainder by 97.

    The month is 1 to 12, or from 20 to 42 or from 50 on where it is not known.
    """
    month = int(value[3:5])
    if not (1 <= month <= 12 or 20 <= month <= 42 or month >= 50):
        return False
    number = value.upper().replace("2A", "19").replace("2B", "18")
    return number.isdigit() and 97 - int(number[:13]) % 97 == int(number[13:])


def _latvian(value: str) -> bool:
    """Personas kods of before 2017: date, and a digit modulo 11."""
    return _is_date(int(value[2:4]), int(value[:2])) and (
        1101 - weighted(value[:10], (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    ) % 11 == int(value[10])


def _hungarian(value: str) -> bool:
    """TAJ: a digit by threes and sevens modulo 10."""
    return weighted(value[:8], (3, 7) * 4) % 10 == int(value[8])


def _russian(value: str) -> bool:
    """SNILS: two digits by the sum modulo 101."""
    return weighted(value[:9], range(9, 0, -1)) % 101 % 100 == int(value[9:])


def _british(value: str) -> bool:
    """National Insurance number: prefixes that are never given out."""
    prefix = value[:2].upper()
    return prefix not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def _austrian(value: str) -> bool:
    """Sozialversicherungsnummer: number, digit modulo 11, and a date, of which the month may run past 12."""
    check = weighted(value[:3] + value[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11
    return value[0] != "0" and check == int(value[3]) and _is_date(min(int(value[6:8]), 12), int(value[4:6]))


def _luxembourgish(value: str) -> bool:
    """Matricule: date, number, a Luhn and a Verhoeff digit, both over the first eleven."""
    date = 18 <= int(value[:2]) <= 20 and _is_date(int(value[4:6]), int(value[6:8]))
    return date and luhn.is_valid(value[:12]) and verhoeff.is_valid(value[:11] + value[12])


def _maltese(value: str) -> bool:
    """Identity card number: a letter for the register, and no check."""
    return value[-1].upper() in "ABGHLMPZ"


def _finnish(value: str) -> bool:
    """Henkilötunnus, those of people who stay for a while too."""
    return bool(hetu.is_valid(value, allow_temporary=True))


def _swedish(value: str) -> bool:
    """Personnummer, its century given or not; which century is read off the mark, so any will do."""
    digits = re.sub(r"\D", "", value)
    return bool(personnummer.is_valid(f"{digits[:-4]}-{digits[-4:]}"))


IDENTITY_NUMBERS = (
    _number(
        "AT", r"\d{4} ?\d{6}", _plain(_austrian), r"\bSVNR|\bSV-?(?:Nr|Nummer)|versicherungs-?(?:nr|nummer)"
    ),
    _number("BE", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", _stdnum("be.nn")),
    _number("BG", r"\d{10}", _stdnum("bg.egn"), r"ЕГН|\bEGN\b"),
    _number("CH", r"756(?:\.\d{4}\.\d{4}\.\d{2}|\d{10})", _stdnum("ch.ssn")),
    _number("CY", r"\d{8}[A-Za-z]", _stdnum("cy.vat"), r"\bTIC\b|Α\.?Φ\.?[ΤΜ]|tax id"),
    _number("CZ/SK", r"\d{6}/?\d{4}", _stdnum("cz.rc"), r"rodn[éeo]\w* [čc]\w+|\br\. ?č\.|\bRČ\b"),
    _number("DE", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _stdnum("de.idnr"), r"steuer-?\s?(id|ident)"),
    _number("DK", r"\d{6}-?\d{4}", _stdnum("dk.cpr"), r"\bCPR\b|personnummer"),
    _number("EE/LT", r"[1-6]\d{10}", _stdnum("ee.ik", "lt.asmens"), r"isikukood|asmens kod|\ba\. ?k\."),
    _number("ES", r"(?:\d{8}|\d{1,2}\.\d{3}\.\d{3}|[XYZ]-?\d{7})-?[A-Z]", _stdnum("es.dni", "es.nie")),
    _number("FI", r"\d{6}[-+ABCDEFUVWXY]\d{3}[A-Y]", _finnish),
    _number("FI", r"\d{6}[-+ABCDEFUVWXY]\d{4}", _finnish, r"henkilötunnu|\bhetu|syntynyt|\bs\."),
    _number("FR", r"[12] \d{2} \d{2} (?:\d{2}|2[AB]) \d{3} \d{3} \d{2}", _plain(_french)),
    _number("FR", r"[12]\d{4}(?:\d{2}|2[AB])\d{8}", _plain(_french), r"sécu|\bNIR\b|\bN\.?S\.?S\b|\bINSEE\b"),
    _number(
        "GB",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        _plain(_british),
        r"insurance|\bNINO?\b",
    ),
    _number("GR", r"\d{11}", _stdnum("gr.amka"), r"ΑΜΚΑ|\bAMKA\b"),
    _number("HR", r"\d{11}", _stdnum("hr.oib"), r"\bOIB\b"),
    _number("HR/RS/SI", r"\d{13}", _stdnum("si.emso"), r"\bJMBG\b|\bEM[ŠS]O\b|ЈМБГ|матичн|mati[čc]n"),
    _number("HU", r"\d{3}(?: |-)?\d{3}(?: |-)?\d{3}", _plain(_hungarian), r"\bTAJ\b"),
    _number("IE", r"\d{7}[A-W][A-IW]?", _stdnum("ie.pps"), r"\bPPS"),
    _number("IT", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", _stdnum("it.codicefiscale")),
    _number("LU", r"(?:18|19|20)\d{11}", _plain(_luxembourgish)),
    _number("LV", r"\d{6}-?\d{5}", _plain(_latvian), r"personas kod|\bp\. ?k\."),
    _number(
        "MT",
        r"\d{5,7}[A-Z]",
        _plain(_maltese),
        r"\bID card|identity card|karta tal-identit|\bID (?:no|numru)",
    ),
    _number("NL", r"\d{9}", _stdnum("nl.bsn"), r"\bBSN\b|burgerservice|sofi"),
    _number("NO", r"\d{6} ?\d{5}", _stdnum("no.fodselsnummer")),
    _number("PL", r"\d{11}", _stdnum("pl.pesel"), r"\bPESEL"),
    _number("PT", r"\d{3} ?\d{3} ?\d{3}", _stdnum("pt.nif"), r"\bNIF\b|contribuinte"),
    _number("RO", r"[1-9]\d{12}", _stdnum("ro.cnp"), r"\bC\.?N\.?P\b|cod(?:ul)? numeric"),
    _number("RU", r"\d{3}-\d{3}-\d{3}(?: |-)\d{2}", _plain(_russian)),
    _number("SE", r"(?:19|20)?\d{6}[-+]?\d{4}", _swedish, r"personn(?:umme)?r|\bpnr\b|samordningsn"),
    _number("UA", r"\d{10}", _stdnum("ua.rntrc"), r"ІПН|РНОКПП|\bІНН\b"),
)
