"""The rules of curation: scores, languages, personal data, contamination."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.curation.document_score import document_score, paragraph_score, sentence_score
from salamandra_data.curation.national_ids import IDENTITY_NUMBERS, luhn, mod_11_10
from salamandra_data.curation.personal_data import is_iban, mask
from salamandra_data.errors import DataError

GOOD = "The committee met on Tuesday and agreed to publish its report before the end of the month."


@pytest.mark.parametrize(
    ("sentence", "score"),
    [
        (GOOD, 1.0),
        (GOOD[0].lower() + GOOD[1:], 0.6),
        (GOOD.rstrip("."), 0.6),
        ("Yes indeed.", 0.95),
        ("«Així ho va dir el president.»", 1.0),
        ("Ό,τι και να γίνει, θα είμαστε εδώ.", 1.0),
        (" ".join(["Word", *["word"] * 31]) + ".", None),
    ],
)
def test_sentences_lose_what_is_published(sentence: str, score: float | None) -> None:
    if score is None:
        longer = sentence_score(sentence)
        shorter = sentence_score(sentence.replace(" word", "", 1))
        assert longer / shorter == pytest.approx(0.97, rel=2e-3)
    else:
        assert sentence_score(sentence) == pytest.approx(score)


def test_paragraphs_lose_for_parentheses_numbers_and_length() -> None:
    assert paragraph_score(GOOD, [GOOD]) == pytest.approx(1.0)
    unbalanced = GOOD.replace("Tuesday", "(Tuesday")
    assert paragraph_score(unbalanced, [unbalanced]) == pytest.approx(0.7 * sentence_score(unbalanced))
    assert paragraph_score("1999 2000 2001.", ["1999 2000 2001."]) == pytest.approx(0.25)
    words = GOOD.count(" ") + 1
    long = " ".join([GOOD] * 30)
    assert paragraph_score(long, [GOOD] * 30) == pytest.approx(0.999 ** (30 * words - 200))


@given(st.text(max_size=300))
def test_any_text_has_a_score_between_0_and_1(text: str) -> None:
    assert 0.0 <= document_score(text) <= 1.0


def test_prose_passes_and_menus_repetitions_and_tables_do_not() -> None:
    prose = "\n".join(
        f"{GOOD[:-1]} in session {number}. Its members were not paid for that." for number in range(3)
    )
    assert document_score(prose) > 0.8
    assert document_score("Home\nAbout us\nlog in\nsubscribe now\nnext page") < 0.5
    assert document_score("\n".join([GOOD] * 20)) < 0.5
    assert document_score("1 2 3\n4 5 6\n| 7 | 8 |") < 0.3
    assert document_score("") == 0.0


VALID = {
    "ES": ["12345678Z", "X1234567L", "00000000-T"],
    "FR": ["1 84 12 76 451 089 46"],
    "IT": ["RSSMRA85T10A562S"],
    "PL": ["44051401359"],
    "RO": ["1800101221144"],
    "FI": ["131052-308T"],
    "SE": ["811218-9876", "19811218-9876"],
    "EE/LT": ["37605030299", "38703181745"],
    "LV": ["161175-19997"],
    "CZ/SK": ["736028/5163"],
    "HR/RS/SI": ["0101006500006"],
    "BE": ["85.07.30-033.28"],
    "RU": ["112-233-445 95"],
}
ANNOUNCED = {
    "PT": ("NIF 123456789", "123456789"),
    "BG": ("ЕГН: 7523169263", "7523169263"),
    "HR": ("OIB: 69435151530", "69435151530"),
    "DE": ("Steuer-ID 86 095 742 719", "86 095 742 719"),
    "GR": ("ΑΜΚΑ 01013099997", "01013099997"),
    "GB": ("National Insurance number AB 12 34 56 C", "AB 12 34 56 C"),
    "IE": ("PPSN 6433435F", "6433435F"),
    "NL": ("BSN 111222333", "111222333"),
}


def test_national_ids_are_found_by_their_rules() -> None:
    for country, values in VALID.items():
        number = next(entry for entry in IDENTITY_NUMBERS if entry.country == country)
        for value in values:
            text = f"aa {value} bb"
            match = number.pattern.search(text)
            if number.announced_by is not None or match is None:
                pytest.fail(f"{country} {value}: {match}")
            assert match[0] == value and number.is_at(text, match), (country, value)
            assert mask(text)[0] == "aa <ID> bb", (country, value)


@pytest.mark.parametrize("country", ANNOUNCED)
def test_weakly_checked_ids_need_a_word_before(country: str) -> None:
    text, value = ANNOUNCED[country]
    assert mask(text)[0] == text.replace(value, "<ID>")
    assert mask(f"order {value}")[0] == f"order {value}"


@pytest.mark.parametrize("country", ["PL", "EE/LT", "RO", "BE", "FI", "ES"])
def test_a_wrong_digit_is_no_id(country: str) -> None:
    number = next(entry for entry in IDENTITY_NUMBERS if entry.country == country)
    value = VALID[country][0]
    place = max(place for place, character in enumerate(value[:-1]) if character.isdigit())
    wrong = value[:place] + str((int(value[place]) + 1) % 10) + value[place + 1 :]
    text = f"aa {wrong} bb"
    match = number.pattern.search(text)
    assert match is not None and not number.is_at(text, match)


@given(st.integers(10**8, 10**12), st.integers(0, 12), st.integers(1, 9))
def test_check_digits_find_every_wrong_digit(number: int, place: int, change: int) -> None:
    for check in (luhn, mod_11_10):
        digits = next(f"{number}{last}" for last in range(10) if check(f"{number}{last}"))
        at = place % len(digits)
        wrong = digits[:at] + str((int(digits[at]) + change) % 10) + digits[at + 1 :]
        assert not check(wrong)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to joan.puig+x@correu.cat.", "write to <EMAIL>."),
        ("Pay GB82 WEST 1234 5698 7654 32 today", "Pay <IBAN> today"),
        ("ES9121000418450200051332", "<IBAN>"),
        ("GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654 33"),
        ("from 81.2.69.142 and 192.168.1.1", "from <IP> and 192.168.1.1"),
        ("2a00:1450:4003:80a::200e answered", "<IP> answered"),
        ("Tel.: 93 123 45 67, call", "Tel.: <PHONE>, call"),
        ("call +34 931 234 567 now", "call <PHONE> now"),
        ("as 12.3.3.1. Installing 4.2.13.4 or MC146818A", "as 12.3.3.1. Installing 4.2.13.4 or MC146818A"),
        ("//lists.org/hyperkitty/list/api-announce@lists.org", "//lists.org/hyperkitty/list/<EMAIL>"),
        ("version 3.11.7 of 2024-11-05 12:30:00", "version 3.11.7 of 2024-11-05 12:30:00"),
        ("ISBN 978-3-16-148410-0, pages 1200-1250", "ISBN 978-3-16-148410-0, pages 1200-1250"),
        ("a@b, @user, x = y@z", "a@b, @user, x = y@z"),
        ("population 12345678 and 44051401358", "population 12345678 and 44051401358"),
    ],
)
def test_personal_data_is_masked_and_other_numbers_are_not(text: str, masked: str) -> None:
    found, counts = mask(text)
    assert found == masked
    assert sum(counts.values()) == sum(
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


def test_iban_checks_length_and_remainder() -> None:
    assert is_iban("DE89 3704 0044 0532 0130 00")
    assert not is_iban("DE89 3704 0044 0532 0130 0")
    assert not is_iban("XX89 3704 0044 0532 0130 00")


def test_ngrams_of_tasks_are_found_whatever_case_and_punctuation(tmp_path: Path) -> None:
    from salamandra_data.curation.contamination import NgramIndex

    task = tmp_path / "task.jsonl"
    question = "What is the capital of the smallest country in the whole of northern Europe today?"
    task.write_text(json.dumps({"q": question, "choices": ["a", {"b": "c d"}]}) + "\n")
    index = NgramIndex([task], 13)
    assert index.first_in(f"He asked: {question.upper().replace(' ', ', ')} Nobody knew.") is not None
    assert index.first_in(question.replace("smallest", "largest")) is None
    with pytest.raises(DataError, match="no text of 40 words"):
        NgramIndex([task], 40)
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: not JSON"):
        NgramIndex([tmp_path / "bad.jsonl"], 3)
