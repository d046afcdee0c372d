"""Masking what identifies a person: e-mail and IP addresses, phone numbers, IBANs, national identity numbers.

Text that looks like an address or a number and is none, in program text above all, is recognised by how it is written.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.curation.curation_filter import CurationFilter, Section
from salamandra_data.curation.national_ids import identity_numbers
from salamandra_data.languages import CODE

if TYPE_CHECKING:
    from datatrove.data import Document


class PersonalDataOptions(Options):
    """Whether personal data is masked."""

    mask_personal_data: Annotated[
        bool,
        Option(
            "do not mask e-mail and IP addresses, phone numbers, IBANs and national ids",
            flag="--keep-personal-data",
        ),
    ] = True


class PersonalDataMask(CurationFilter):
    """Masks personal data, and counts it by language and kind. Removes nothing."""

    name: ClassVar[str] = "personal_data"
    Options = PersonalDataOptions
    removes: ClassVar[bool] = False
    report_key: ClassVar[str | None] = "personal_data"

    def __init__(self, options: PersonalDataOptions) -> None:
        super().__init__(options)
        self._found: dict[str, Counter[str]] = {}

    @classmethod
    def is_wanted(cls, options: PersonalDataOptions) -> bool:
        """Unless it is to be left."""
        return options.mask_personal_data

    def examine(self, document: Document) -> str | None:
        """None: every document stays."""
        language = document.metadata["language"]
        document.text, counts = mask(document.text, code=language == CODE)
        if counts:
            self._found.setdefault(language, Counter()).update(counts)
        return None

    def findings(self) -> dict[str, dict[str, int]]:
        """Marks by language and kind."""
        return {language: dict(kinds) for language, kinds in self._found.items()}

    @classmethod
    def sections(cls, findings: Any, settings: Mapping[str, Any]) -> Sequence[Section]:
        """Marks by language and kind."""
        if not findings:
            return ()
        kinds = sorted({kind for counts in findings.values() for kind in counts})
        rows = [
            (language, *(f"{counts[kind]:,}" if kind in counts else "" for kind in kinds))
            for language, counts in findings.items()
        ]
        return [Section("Personal data masked", tables=[(("language", *kinds), rows)])]


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
