"""A filter of the user's own is counted and explained as ours are, and what it gives is not believed without a look."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from curation_run import curated, kept, removed, samples

from salamandra_data.errors import DataError

MODULE = """
from dataclasses import dataclass

from salamandra_data.curation import CurationFilter, Section
from salamandra_data.figures import figure


@dataclass
class Seen:
    letters: int = 0


class Short(CurationFilter):
    name = "short"
    explanation = "fewer <letters> than wanted"

    def __init__(self, options):
        super().__init__(options)
        self.seen = Seen()

    def examine(self, document):
        self.seen.letters += len(document.text)
        document.text = document.text.upper()
        return None if len(document.text) > 5 else f"{len(document.text)} <letters>"

    def findings(self):
        return {"letters": self.seen.letters, "per": [1, {"file": 1}]}

    @classmethod
    def sections(cls, findings, settings):
        drawing, axes = figure(2, 2)
        axes.plot([0, findings["letters"]])
        return [Section("Letters <seen>", text="of all files", plots=[drawing])]


class Upper(CurationFilter):
    name = "upper"
    removes = False

    def examine(self, document):
        document.text = document.text.upper()


class Returns(CurationFilter):
    name = "returns"

    def examine(self, document):
        return 1 if document.text == "number" else "" if document.text == "gone" else 1 / 0


class NamedAsOurs(Short):
    name = "score"


class OddName(Short):
    name = "../up"


class NoJson(Short):
    def findings(self):
        return {"a": {1, 2}}


class OtherOptions(Short):
    name = "other"
    Options = dict


class NoExamine(CurationFilter):
    name = "no-examine"


class FailsAtOnce(Short):
    name = "fails"

    def __init__(self, options):
        raise OSError("no dictionary")


class Mute(Short):
    name = "mute"

    @classmethod
    def merged(cls, one, other):
        raise KeyError("letters")

    @classmethod
    def sections(cls, findings, settings):
        return findings["letters"]


class Half(CurationFilter):
    name = "half"

    def examine(self, document):
        return "half of it: \\ud83d"
"""
RECORDS = {
    "a.jsonl": [{"text": "long enough", "language": "en"}, {"text": "brief", "language": "en"}],
    "b.jsonl": [{"text": "tiny", "language": "ca"}],
}


def run(directory: Path, *names: str, records: Any = RECORDS) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    (directory / "mine.py").write_text(MODULE)
    wanted = [{"class": f"mine.py:{name}"} for name in names]
    (directory / "filters.yaml").write_text(json.dumps({"filters": wanted}))
    return curated(directory, records, filters=directory / "filters.yaml")


def test_removals_changes_findings_and_sections_are_in_the_account(tmp_path: Path) -> None:
    before = list(sys.path)
    report = run(tmp_path, "Short")
    assert removed(report) == {"short": 2}
    assert [document["text"] for document in kept(tmp_path)] == ["LONG ENOUGH"]
    assert {sample["detail"] for sample in samples(tmp_path, "short")} == {"5 <letters>", "4 <letters>"}
    assert report["findings"] == {"short": {"letters": 20, "per": [2, {"file": 2}]}}
    page = (tmp_path / "out/curation.html").read_text()
    assert "short: fewer &lt;letters&gt; than wanted" in page and "<h2>Letters &lt;seen&gt;</h2>" in page
    assert page.count("<svg") == 2 and "<p>of all files</p>" in page
    assert sys.path == before


def test_the_account_of_ours_is_as_without_them(tmp_path: Path) -> None:
    without = curated(tmp_path / "a", RECORDS)
    with_one = run(tmp_path / "b", "Upper")
    assert list(without["removed"]) == list(with_one["removed"])  # it removes nothing, so it is no reason
    assert without["written"] == with_one["written"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NamedAsOurs", "two filters are called 'score'"),
        ("OddName", r"name = '\.\./up': a lower-case letter"),
        (
            "Absent",
            r"filters\[0\] .*mine\.py:Absent: AttributeError: .*has no attribute 'Absent'\n  give module:name",
        ),
        ("NoJson", "filter short: what it found is no JSON"),
        ("OtherOptions", "Options is <class 'dict'>, and no pydantic model"),
        ("NoExamine", "mine.py:NoExamine: TypeError: .*abstract"),
        ("FailsAtOnce", "mine.py:FailsAtOnce: OSError: no dictionary"),
        ("Seen", "is no class below salamandra_data.curation.CurationFilter"),
    ],
)
def test_what_is_no_filter_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, name)


def test_what_a_filter_cannot_say_of_finished_work_does_not_end_the_run(tmp_path: Path) -> None:
    report = run(tmp_path, "Mute")
    assert removed(report) == {"mute": 2}
    assert "could not be merged: KeyError" in report["findings"]["mute"]["error"]
    assert "Its part of this page could not be made: KeyError" in (tmp_path / "out/curation.html").read_text()


def test_two_filters_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two filters are called 'short': give one another name"):
        run(tmp_path, "Short", "Short")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("number", r"filter returns: gives 1 for document a\.jsonl:1\n  it must return None"),
        ("other", r"filter returns: ZeroDivisionError on document a\.jsonl:1: division by zero"),
    ],
)
def test_a_filter_that_fails_is_told_with_its_document(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path, "Returns", records=[{"text": text, "language": "en"}])


def test_nothing_to_say_and_half_a_character_are_text(tmp_path: Path) -> None:
    assert removed(run(tmp_path / "a", "Returns", records=[{"text": "gone", "language": "en"}])) == {
        "returns": 1
    }
    run(tmp_path / "b", "Half", records=[{"text": "gone", "language": "en"}])
    assert samples(tmp_path / "b", "half")[0]["detail"] == "half of it: ?"


def test_other_filters_make_another_run(tmp_path: Path) -> None:
    run(tmp_path, "Short")
    run(tmp_path, "Short", records={})
    with pytest.raises(DataError, match="holds a run on other input or with other options"):
        run(tmp_path, "Upper", records={})
