"""Identity numbers of persons in the covered countries.

Each kind is a pattern and a check. A number that is nothing but digits counts unannounced only if its check takes fewer
than one in a thousand of them for an identity; other kinds need a word shortly before, such as *PESEL*. So do those
whose punctuation is that of case numbers and dates, and in program text all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from salamandra_data.curation import identity_checks as checks
from salamandra_data.curation.check_digits import ean_13, mod_11_10

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
        check: whether digits and letters, without separators, are one.
        announced_by: a pattern that must match shortly before, where the check is weak.
    """

    country: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    announced_by: re.Pattern[str] | None = None

    def is_at(self, text: str, match: re.Match[str]) -> bool:
        """Whether a match of the pattern is such a number."""
        if not self.check(_SEPARATORS.sub("", match[0])):
            return False
        if self.announced_by is None:
            return True
        return self.announced_by.search(text, max(0, match.start() - _BEFORE), match.start()) is not None


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


IDENTITY_NUMBERS = (
    _number(
        "AT", r"\d{4} ?\d{6}", checks.austrian, r"\bSVNR|\bSV-?(?:Nr|Nummer)|versicherungs-?(?:nr|nummer)"
    ),
    _number("BE", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", checks.belgian),
    _number("BG", r"\d{10}", checks.bulgarian, r"ЕГН|\bEGN\b"),
    _number("CH", r"756(?:\.\d{4}\.\d{4}\.\d{2}|\d{10})", ean_13),
    _number("CY", r"\d{8}[A-Za-z]", checks.cypriot, r"\bTIC\b|Α\.?Φ\.?[ΤΜ]|tax id"),
    _number("CZ/SK", r"\d{6}/?\d{4}", checks.czechoslovak, r"rodn[éeo]\w* [čc]\w+|\br\. ?č\.|\bRČ\b"),
    _number("DE", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", mod_11_10, r"steuer-?\s?(id|ident)"),
    _number("DK", r"\d{6}-?\d{4}", checks.danish, r"\bCPR\b|personnummer"),
    _number("EE/LT", r"[1-6]\d{10}", checks.baltic, r"isikukood|asmens kod|\ba\. ?k\."),
    _number("ES", r"(?:\d{8}|\d{1,2}\.\d{3}\.\d{3}|[XYZ]-?\d{7})-?[A-Z]", checks.spanish),
    _number("FI", r"\d{6}[-+ABCDEFUVWXY]\d{3}[A-Y]", checks.finnish),
    _number("FI", r"\d{6}[-+ABCDEFUVWXY]\d{4}", checks.finnish, r"henkilötunnu|\bhetu|syntynyt|\bs\."),
    _number("FR", r"[12] \d{2} \d{2} (?:\d{2}|2[AB]) \d{3} \d{3} \d{2}", checks.french),
    _number("FR", r"[12]\d{4}(?:\d{2}|2[AB])\d{8}", checks.french, r"sécu|\bNIR\b|\bN\.?S\.?S\b|\bINSEE\b"),
    _number(
        "GB",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        checks.british,
        r"insurance|\bNINO?\b",
    ),
    _number("GR", r"\d{11}", checks.greek, r"ΑΜΚΑ|\bAMKA\b"),
    _number("HR", r"\d{11}", mod_11_10, r"\bOIB\b"),
    _number("HR/RS/SI", r"\d{13}", checks.yugoslav, r"\bJMBG\b|\bEM[ŠS]O\b|ЈМБГ|матичн|mati[čc]n"),
    _number("HU", r"\d{3}(?: |-)?\d{3}(?: |-)?\d{3}", checks.hungarian, r"\bTAJ\b"),
    _number("IE", r"\d{7}[A-W][A-IW]?", checks.irish, r"\bPPS"),
    _number("IT", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", checks.italian),
    _number("LU", r"(?:18|19|20)\d{11}", checks.luxembourgish),
    _number("LV", r"\d{6}-?\d{5}", checks.latvian, r"personas kod|\bp\. ?k\."),
    _number(
        "MT", r"\d{5,7}[A-Z]", checks.maltese, r"\bID card|identity card|karta tal-identit|\bID (?:no|numru)"
    ),
    _number("NL", r"\d{9}", checks.dutch, r"\bBSN\b|burgerservice|sofi"),
    _number("NO", r"\d{6} ?\d{5}", checks.norwegian),
    _number("PL", r"\d{11}", checks.polish, r"\bPESEL"),
    _number("PT", r"\d{3} ?\d{3} ?\d{3}", checks.portuguese, r"\bNIF\b|contribuinte"),
    _number("RO", r"[1-9]\d{12}", checks.romanian, r"\bC\.?N\.?P\b|cod(?:ul)? numeric"),
    _number("RU", r"\d{3}-\d{3}-\d{3}(?: |-)\d{2}", checks.russian),
    _number("SE", r"(?:19|20)?\d{6}[-+]?\d{4}", checks.swedish, r"personn(?:umme)?r|\bpnr\b|samordningsn"),
    _number("UA", r"\d{10}", checks.ukrainian, r"ІПН|РНОКПП|\bІНН\b"),
)
