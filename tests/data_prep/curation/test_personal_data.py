"""Personal data is masked, and numbers and program text that look like it are not."""

from __future__ import annotations

import random
import re
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.curation.national_ids import IDENTITY_NUMBERS, weighted
from salamandra_data.curation.personal_data import is_iban, is_international, mask

UNANNOUNCED = {
    "BE": ["85.07.30-033.28"],
    "CH": ["756.9217.0769.85", "7569217076985"],
    "ES": ["12345678Z", "X1234567L", "00000000-T", "12.345.678-Z"],
    "FI": ["131052-308T"],
    "FR": ["1 84 12 76 451 089 46", "1\u00a084\u00a012\u00a076\u00a0451\u00a0089\u00a046"],
    "IT": ["RSSMRA85T10A562S"],
    "LU": ["1893120105732"],
    "NO": ["15108695088", "151086 95088"],
    "RU": ["112-233-445 95"],
}
ANNOUNCED = {
    "AT": ("SV-Nr. 1237 010180", "1237 010180"),
    "BG": ("ЕГН: 7523169263", "7523169263"),
    "CY": ("TIC: 00123123T", "00123123T"),
    "CZ/SK": ("rodné číslo 736028/5163", "736028/5163"),
    "DE": ("Steuer-ID 86 095 742 719", "86 095 742 719"),
    "DK": ("CPR-nummer 131052-1234", "131052-1234"),
    "EE/LT": ("Isikukood 37605030299", "37605030299"),
    "FI": ("Hetu: 010170-9140", "010170-9140"),
    "FR": ("N° de sécu 184127645108946", "184127645108946"),
    "GB": ("National Insurance number AB 12 34 56 C", "AB 12 34 56 C"),
    "GR": ("ΑΜΚΑ 01013099997", "01013099997"),
    "HR": ("OIB: 69435151530", "69435151530"),
    "HR/RS/SI": ("EMŠO 0101006500006", "0101006500006"),
    "HU": ("TAJ szám: 123 456 788", "123 456 788"),
    "IE": ("PPSN 6433435F", "6433435F"),
    "LV": ("personas kods 161175-19997", "161175-19997"),
    "MT": ("ID card no. 123456M", "123456M"),
    "NL": ("BSN 111222333", "111222333"),
    "PL": ("PESEL: 44051401359", "44051401359"),
    "PT": ("NIF 123456789", "123456789"),
    "RO": ("CNP 1800101221144", "1800101221144"),
    "SE": ("personnummer 19811218-9876", "19811218-9876"),
    "UA": ("РНОКПП 1759013776", "1759013776"),
}


@pytest.mark.parametrize("country", UNANNOUNCED)
def test_well_checked_ids_are_found_by_their_rules(country: str) -> None:
    for value in UNANNOUNCED[country]:
        assert mask(f"aa {value} bb")[0] == "aa <ID> bb", value


@pytest.mark.parametrize("country", ANNOUNCED)
def test_weakly_checked_ids_need_a_word_before(country: str) -> None:
    text, value = ANNOUNCED[country]
    assert mask(text)[0] == text.replace(value, "<ID>")
    assert mask(f"order {value}")[0] == f"order {value}"


def test_every_country_of_a_covered_language_has_its_ids_tested() -> None:
    assert {*UNANNOUNCED, *ANNOUNCED} == {number.country for number in IDENTITY_NUMBERS}
    home = (
        "AT BE BG CH CY CZ DE DK EE ES FI FR GB GR HR HU IE IT LT LU LV MT NL NO PL PT RO RS RU SE SI SK UA"
    )
    covered = {country for number in IDENTITY_NUMBERS for country in number.country.split("/")}
    assert covered == set(home.split())


@pytest.mark.parametrize("country", sorted({*UNANNOUNCED, *ANNOUNCED} - {"DK", "GB", "MT"}))
def test_a_wrong_digit_is_no_id(country: str) -> None:
    text, value = ANNOUNCED[country] if country in ANNOUNCED else ("", UNANNOUNCED[country][0])
    text = text or value
    place = max(place for place, character in enumerate(value[:-1]) if character.isdigit())
    wrong = value[:place] + str((int(value[place]) + 1) % 10) + value[place + 1 :]
    assert mask(text)[0] != text
    assert mask(text.replace(value, wrong))[0] == text.replace(value, wrong)


@pytest.mark.parametrize(
    "text",
    [
        "CPR-nummer 310252-1234",
        "fødselsnummer 31029695349",
        "CNP 3681212863688",
        "NIF 093726619",
        "PPSN 5555415JI",
    ],
)
def test_numbers_that_no_authority_gives_out_are_no_id(text: str) -> None:
    assert mask(text)[0] == text  # days that do not exist, counties and kinds of person that are none


def digits(size: int) -> Callable[[random.Random], str]:
    return lambda chance: str(chance.randrange(10 ** (size - 1), 10**size))


def article_number(chance: random.Random) -> str:
    number = f"978{chance.randrange(10**9):09d}"
    return number + str(-weighted(number, (1, 3) * 6) % 10)


def day(chance: random.Random) -> str:
    return f"{chance.randint(1990, 2029)}{chance.randint(1, 12):02d}{chance.randint(1, 28):02d}"


PLAIN_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    **{f"{size} digits": digits(size) for size in range(7, 17)},
    "article number": article_number,
    "milliseconds since 1970": lambda chance: str(chance.randrange(946684800000, 1900000000000)),
    "day and build": lambda chance: f"{day(chance)}-{chance.randrange(10**4):04d}",
    "case number": lambda chance: f"{chance.randrange(10**6):06d}/{chance.randint(1990, 2029)}",
    "amount": lambda chance: (
        f"+{chance.randint(1, 99)} {chance.randrange(1000):03d} {chance.randrange(1000):03d} euro"
    ),
}


@pytest.mark.parametrize("kind", PLAIN_NUMBERS)
def test_of_a_thousand_plain_numbers_less_than_two_are_masked(kind: str) -> None:
    chance = random.Random(kind)
    masked: Counter[str] = Counter()
    for _ in range(1500):
        masked.update(mask(f"no {PLAIN_NUMBERS[kind](chance)}, see")[1])
    assert masked.total() < 3, masked


def test_program_text_is_left_alone_but_for_addresses() -> None:
    directory = Path(sysconfig.get_paths()["stdlib"])
    own = (
        path for path in sorted(directory.rglob("*.py")) if not {"site-packages", "test"} & set(path.parts)
    )
    files = list(own)[::8]  # tests of it hold addresses
    texts = [path.read_text(errors="replace") for path in files]
    size = sum(map(len, texts))
    found: Counter[str] = Counter()
    for text in texts:
        found.update(mask(text, code=True)[1])
    assert size > 1_000_000
    assert 1e6 * (found.total() - found["email"]) / size < 1.0, found  # marks in a million characters


@pytest.mark.parametrize(
    "text",
    [
        "y[..., ::2], x[1::2], runs[2000::3]",
        "score = q@k.transpose(-2, -1); a @ b; w@x.to(device)",
        "weights@torch.eye and `@torch.jit.compile`",
        "icon@2x.png and logo@3x.jpg",
        "x = +10000000; mask = 0x0010; 0034 931234567; part 12345678Z",
        "std::vector<a::b> dead::beef:cafe 12:34:56:78:9a:bc",
    ],
)
def test_slices_products_and_constants_are_no_personal_data(text: str) -> None:
    assert mask(text, code=True) == (text, {})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to joan.puig+x@correu.cat.", "write to <EMAIL>."),
        ("'anna@example.org', mailto:joe@x.com's", "'<EMAIL>', mailto:<EMAIL>'s"),
        ("a.b@münchen.de ανδρέας@παράδειγμα.ελ", "<EMAIL> <EMAIL>"),
        ("Pay GB82 WEST 1234 5698 7654 32 today", "Pay <IBAN> today"),
        ("ES9121000418450200051332", "<IBAN>"),
        ("ES91 2100 0418 4502 0005 1332 BIC CAIXESBB", "<IBAN> BIC CAIXESBB"),
        ("BE68 5390 0754 7034 EUR", "<IBAN> EUR"),
        ("IBAN: ES91-2100-0418-4502-0005-1332", "IBAN: <IBAN>"),
        ("es91 2100 0418 4502 0005 1332", "<IBAN>"),
        ("IBAN\u00a0ES91\u00a02100\u00a00418\u00a04502\u00a00005\u00a01332", "IBAN\u00a0<IBAN>"),
        ("MT84MALT011000012345MTLCAST001S", "<IBAN>"),
        ("GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654 33"),
        ("from 81.2.69.142 and 192.168.1.1", "from <IP> and 192.168.1.1"),
        ("2a00:1450:4003:80a::200e answered", "<IP> answered"),
        ("2001:db8::1 ::1 fe80::1:2:3", "2001:db8::1 ::1 fe80::1:2:3"),
        ("Tel.: 93 123 45 67, call", "Tel.: <PHONE>, call"),
        ("Τηλ: 210 123 4567; тел. 8 495 123-45-67", "Τηλ: <PHONE>; тел. <PHONE>"),
        ("call +34 931 234 567 now", "call <PHONE> now"),
        ("call +34 931 234 567 12 times", "call <PHONE> 12 times"),
        ("(+34) 931 234 567, +44 (0)20 7946 0958, 0034 931234567", "<PHONE>, <PHONE>, <PHONE>"),
        ("+1 212 555 0123 or +39 06 6982 1234", "<PHONE> or <PHONE>"),
        (
            "0012345678, 0010 0020 0030, barcode 00123456789",
            "0012345678, 0010 0020 0030, barcode 00123456789",
        ),
        ("+100 000 000 personas, +35236450.6", "+100 000 000 personas, +35236450.6"),
        ("tel. 2019-2020-2021, Telefon: 12.03.2024", "tel. 2019-2020-2021, Telefon: 12.03.2024"),
        ("The phone (2024) 12/03/2024 edition", "The phone (2024) 12/03/2024 edition"),
        ("iPhone 2007-2008-2009, www.tel.12345678", "iPhone 2007-2008-2009, www.tel.12345678"),
        ("as 12.3.3.1. Installing 4.2.13.4 or MC146818A", "as 12.3.3.1. Installing 4.2.13.4 or MC146818A"),
        ("//lists.org/hyperkitty/list/api-announce@lists.org", "//lists.org/hyperkitty/list/<EMAIL>"),
        ("version 3.11.7 of 2024-11-05 12:30:00", "version 3.11.7 of 2024-11-05 12:30:00"),
        ("ISBN 978-3-16-148410-0, pages 1200-1250", "ISBN 978-3-16-148410-0, pages 1200-1250"),
        ("a@b, @user, x = y@z, icon@2x.png", "a@b, @user, x = y@z, icon@2x.png"),
        ("population 12345678 and 44051401359", "population 12345678 and 44051401359"),
    ],
)
def test_personal_data_is_masked_and_other_numbers_are_not(text: str, masked: str) -> None:
    found, counts = mask(text)
    assert found == masked
    assert counts.total() == sum(
        masked.count(mark) for mark in ("<EMAIL>", "<IBAN>", "<IP>", "<PHONE>", "<ID>")
    )


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Nd"]).filter(lambda character: character not in "@:"),
        max_size=99,
    )
)
def test_text_without_digits_and_at_signs_is_not_touched(text: str) -> None:
    assert mask(text) == (text, {})


@given(st.text(st.sampled_from("0123456789 +-./():@aEDS9éٱ\n"), max_size=60), st.booleans())
def test_what_is_not_masked_stays_as_it_was(text: str, code: bool) -> None:
    masked, counts = mask(text, code=code)
    pieces = re.split("<[A-Z]+>", masked)
    assert len(pieces) == counts.total() + 1
    place = 0
    for piece in pieces:
        place = text.index(piece, place) + len(piece)


def test_iban_checks_length_and_remainder() -> None:
    assert is_iban("DE89 3704 0044 0532 0130 00")
    assert not is_iban("DE89 3704 0044 0532 0130 0")
    assert not is_iban("XX89 3704 0044 0532 0130 00")


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("+34 931 234 567", True),
        ("+34 031 234 567", False),
        ("+34 931 234 56", False),
        ("+1 212 555 0123", True),
        ("+1 112 555 0123", False),
        ("+39 06 6982 1234", True),
        ("+356 2123 4567", True),
        ("+1 2 3 4 5 6 7 8 9 10", False),
        ("+34 900 000 000", False),
    ],
)
def test_international_numbers_have_the_length_of_their_country(number: str, valid: bool) -> None:
    assert is_international(number) == valid
