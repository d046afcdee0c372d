"""A curation run removes what it should, counts all of it, and writes the same whoever does the work."""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import zstandard
from slurm_stand_in import install_slurm_stand_in

from megatron_salamandra.cli import main
from salamandra_data.curation import CurationSettings, curate
from salamandra_data.errors import DataError
from salamandra_data.execution import LocalSettings

WORDS = {
    "en": "the committee members discussed every proposal before lunch and agreed that local schools should receive "
    "better libraries because children need quiet places where reading becomes part of daily life again",
    "ca": "els membres del comitè van discutir cada proposta abans de dinar i van acordar que les escoles locals "
    "haurien de rebre millors biblioteques perquè els infants necessiten espais tranquils on llegir cada dia",
}
QUESTION = (
    "Which of these four famous rivers flows through the largest number of different European capital cities?"
)
FOOTER = "All rights of this page belong to the regional museum of modern art."


def prose(language: str, seed: int, sentences: int = 8) -> str:
    """Text of no meaning that looks like prose."""
    chance = random.Random(f"{language} {seed}")
    words = WORDS[language].split()
    return "\n".join(" ".join(chance.sample(words, k=14)).capitalize() + "." for _ in range(sentences))


def harm(text: str, language: str) -> float:
    """The score that a test gives."""
    return 0.9 if "poison" in text else 0.1


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two files of good documents, and one of each kind of bad one."""
    english = [{"text": prose("en", n), "language": "en", "source": "web"} for n in range(20)]
    catalan = [{"text": prose("ca", n), "language": "ca", "source": "web"} for n in range(20)]
    near = prose("en", 3, 30)
    english += [
        {
            "text": english[0]["text"] + "\n",
            "language": "en",
            "source": "web",
        },  # equal to a document but for space
        {"text": english[1]["text"], "language": "en", "source": "books"},  # of another source
        {"text": near, "language": "en", "source": "web"},
        {"text": near.replace("quiet", "calm", 1), "language": "en", "source": "web"},
        {"text": prose("ca", 99), "language": "en", "source": "web"},
        {"text": "home | about | log in\nmenu\n>>> next", "language": "en", "source": "web"},
        {"text": f"{prose('en', 50)}\n{QUESTION} Nobody knew.", "language": "en", "source": "web"},
        {"text": f"{prose('en', 51)}\nThe poison was strong.", "language": "en", "source": "web"},
        {"text": "  ", "language": "en"},
        {"text": f"{prose('en', 52)}\nWrite to anna@example.org now.", "language": "en", "source": "web"},
    ]
    catalan += [
        {"text": f"{prose('ca', 60 + n)}\n{FOOTER}", "language": "ca", "source": "web"} for n in range(3)
    ]
    write(tmp_path / "in" / "en.jsonl", english)
    write(tmp_path / "in" / "ca.jsonl", catalan)
    code = ["x = 1\nif x:\n    print(x)\n", "def f(a):\n    return a\n", "for (;;) { i++; }\n"]
    write(tmp_path / "in" / "code.jsonl", [{"text": text, "language": "code"} for text in code])
    write(tmp_path / "task.jsonl", [{"question": QUESTION, "answer": "the Danube"}])
    with (tmp_path / "in" / "ca.jsonl").open("a") as stream:
        stream.write('{"text": "trencat\n')
    return tmp_path


def settings(corpus: Path, out: str = "out", **changes: Any) -> CurationSettings:
    base = CurationSettings(
        input=(str(corpus / "in"),),
        out=corpus / out,
        on_error="skip",
        decontaminate=(corpus / "task.jsonl",),
        ngram=8,
    )
    return base.model_copy(update=changes)


def run(wanted: CurationSettings, workers: int = 1) -> dict[str, Any]:
    _, result = curate(wanted, LocalSettings(workers))
    assert result is not None
    return result.report


def documents(out: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((out / "documents").iterdir()):
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            found += [json.loads(line) for line in stream.read().splitlines()]
    return found


def removed(report: dict[str, Any]) -> dict[str, int]:
    return {
        reason: sum(tally["documents"] for tally in tallies.values())
        for reason, tallies in report["removed"].items()
        if tallies
    }


def files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".stages" not in path.parts
    }


def test_each_bad_document_goes_for_its_reason_and_the_others_stay(corpus: Path) -> None:
    report = run(settings(corpus))
    assert removed(report) == {
        "malformed": 1,
        "empty": 1,
        "language": 1,
        "contaminated": 1,
        "score": 1,
        "exact": 1,
        "near": 1,
    }
    kept = documents(corpus / "out")
    assert len(kept) == sum(tally["documents"] for tally in report["written"].values())
    texts = [document["text"] for document in kept]
    assert sum("<EMAIL>" in text for text in texts) == 1 and not any("anna@" in text for text in texts)
    assert report["personal_data"] == {"en": {"email": 1}}
    assert sum("regional museum" in text for text in texts) == 1  # the footer stays where it came first
    assert report["repeated_paragraphs"]["ca"]["paragraphs"] == 2
    assert texts.count(prose("en", 1)) == 2  # of two sources
    by_id = {document["id"]: document for document in kept}
    assert by_id["en.jsonl:1"]["text"] == prose("en", 0) and by_id["en.jsonl:1"]["quality_score"] > 0.8
    assert sum(document["language"] == "code" for document in kept) == 3


def test_a_score_of_ones_own_removes_and_samples_say_why(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    module = types.ModuleType("scores_of_mine")
    module.harm = harm  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scores_of_mine", module)
    report = run(settings(corpus, harm="scores_of_mine:harm", max_harm=0.8))
    assert removed(report)["harm"] == 1
    (sample,) = map(json.loads, (corpus / "out/removed/harm.jsonl").read_text().splitlines())
    assert "poison" in sample["text"] and sample["detail"] == "harm 0.900"
    page = (corpus / "out/curation.html").read_text()
    assert "harm 0.900" in page and page.count("<svg") == 2 and "score 0." in page


def test_what_is_written_does_not_depend_on_workers(corpus: Path) -> None:
    for workers in (1, 2):
        run(settings(corpus, f"out{workers}"), workers)
    assert files(corpus / "out1") == files(corpus / "out2")


def test_duplicates_across_sources_go_when_asked(corpus: Path) -> None:
    report = run(settings(corpus, across_sources=True))
    assert removed(report)["exact"] == 2


def test_steps_that_are_switched_off_remove_nothing(corpus: Path) -> None:
    off = settings(
        corpus,
        check_language=False,
        score=False,
        exact=False,
        near=False,
        paragraphs=False,
        mask_personal_data=False,
        decontaminate=(),
    )
    report = run(off)
    assert removed(report) == {"malformed": 1, "empty": 1}
    assert any("anna@example.org" in document["text"] for document in documents(corpus / "out"))
    assert report["score_histogram"] == {}


def test_the_account_holds_every_option_but_places(corpus: Path) -> None:
    wanted = settings(corpus, samples=3, min_words=4, across_sources=True, seed=7)
    told = run(wanted)["settings"]
    assert told.keys() == CurationSettings.model_fields.keys() - {"input", "out"}
    assert (told["samples"], told["min_words"], told["across_sources"], told["seed"]) == (3, 4, True, 7)
    assert told["on_error"] == "skip" and told["decontaminate"] == [str(corpus / "task.jsonl")]


def test_languages_can_be_found_instead_of_checked(corpus: Path) -> None:
    report = run(settings(corpus, identify_language=True))
    assert report["written"]["ca"]["documents"] == 24  # one of them said it was English
    assert report["read"]["ca"]["documents"] == 23


def test_a_second_start_does_only_what_is_missing_and_other_options_are_refused(corpus: Path) -> None:
    wanted = settings(corpus)
    run(wanted)
    before = {path: path.stat().st_mtime_ns for path in (corpus / "out").rglob("*.zst")}
    run(wanted)
    assert {path: path.stat().st_mtime_ns for path in (corpus / "out").rglob("*.zst")} == before
    with pytest.raises(DataError, match="holds a run on other input or with other options"):
        run(wanted.model_copy(update={"min_score": 0.5}))


def test_more_files_than_may_be_open_are_compared(tmp_path: Path) -> None:
    for number in range(60):
        write(tmp_path / "in" / f"{number}.jsonl", [{"text": f"text {number // 2}", "language": "code"}])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        wanted = CurationSettings(
            input=(str(tmp_path / "in"),), out=tmp_path / "out", near=False, paragraphs=False
        )
        assert removed(run(wanted)) == {"exact": 30}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_document_left_with_too_little_goes_as_a_whole(tmp_path: Path) -> None:
    line = "The annual report of the society was printed in the old town hall."
    records = [
        {"text": f"{prose('en', 1)}\n{line}", "language": "en"},
        {"text": f"{line}\nYes.", "language": "en"},
    ]
    write(tmp_path / "in" / "a.jsonl", records)
    report = run(
        CurationSettings(
            input=(str(tmp_path / "in"),), out=tmp_path / "out", score=False, check_language=False
        )
    )
    assert removed(report) == {"paragraphs": 1}
    assert [document["id"] for document in documents(tmp_path / "out")] == ["a.jsonl:1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decontaminate": (Path("nowhere.jsonl"),)}, "nowhere.jsonl: no such file"),
        ({"harm": "no_such_module:f"}, "--harm-score no_such_module:f"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(
    corpus: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(settings(corpus, **changes))
    assert not (corpus / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-score=1.5"], "'1.5' is not a number from 0 to 1"),
        (["--min-score=nan"], "'nan'"),
        (["--ngram=1"], "'1' is not a whole number, 2 or more"),
        (["--max-harm=0.5"], "--max-harm needs --harm-score"),
        (["--identify-language", "--no-check-language"], "not allowed with"),
    ],
)
def test_values_out_of_their_range_are_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["data", "curate", "--input", str(corpus / "in"), "--out", str(corpus / "out"), *options]
    try:
        assert main(command) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert message in capsys.readouterr().err and not (corpus / "out").exists()


def test_a_malformed_line_ends_the_run_unless_told_otherwise(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"ca\.jsonl:24: .*\n  mend the line"):
        run(settings(corpus, on_error="fail"))
    assert not (corpus / "out/documents").exists()


def test_a_directory_with_other_files_is_not_written_to(corpus: Path) -> None:
    write(corpus / "out" / "mine.jsonl", [])
    with pytest.raises(DataError, match="holds other files"):
        run(settings(corpus))


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor",
    [
        pytest.param(["--executor=slurm", "--slurm-partition=cpu"], id="slurm"),
        pytest.param(["--executor=ray", "--workers=2", "--memory-per-cpu=1"], id="ray"),
    ],
)
def test_every_executor_writes_the_same_with_all_steps_over_three_files(
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    executor: list[str],
) -> None:
    if "--executor=ray" in executor:
        pytest.importorskip("ray")
    copies = [prose("en", 5), prose("en", 3, 30).replace("lunch", "noon", 1), f"{prose('en', 70)}\n{FOOTER}"]
    with (corpus / "in" / "code.jsonl").open("a") as stream:  # what also stands in the other two files
        for text in copies:
            stream.write(json.dumps({"text": text, "language": "en", "source": "web"}) + "\n")
    report = run(settings(corpus, "here"))
    assert removed(report)["exact"] == 2 and removed(report)["near"] == 2
    assert report["repeated_paragraphs"].keys() == {"ca", "en"}
    command = ["data", "curate", "--input", str(corpus / "in"), "--out", str(corpus / "there")]
    command += ["--on-error=skip", "--decontaminate", str(corpus / "task.jsonl"), "--ngram=8", *executor]
    if "--executor=slurm" in executor:
        environment, _ = install_slurm_stand_in(corpus / "slurm")
        monkeypatch.setenv("PATH", environment["PATH"])
        assert main(command) == 0 and "submitted report: SLURM job" in capsys.readouterr().out
    assert main(command) == 0 and "what went and why" in capsys.readouterr().out
    assert files(corpus / "there") == files(corpus / "here")
