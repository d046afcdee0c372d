"""The page of a run: whole, closed, escaped, small, and true to the records, whatever state the run is in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from written_run import HOSTILE, at, step_values, write_run

from megatron_salamandra.cluster import (
    Decision,
    NoRun,
    Outcome,
    RankFailure,
    Round,
    RoundBook,
    load_profile,
)
from megatron_salamandra.cluster.rounds import Action, Cause
from megatron_salamandra.foundation.atomic_files import WriteError
from megatron_salamandra.foundation.json_files import append_json_lines, write_json
from megatron_salamandra.report import read_run, report_numbers, write_report, write_report_in_time
from megatron_salamandra.run_directory import RunDirectory
from megatron_salamandra.run_directory.owner_record import OwnerRecord

SECTIONS = [
    *("loss", "course", "parts", "languages", "ledger", "phases", "incidents", "time", "checkpoints"),
    *("plan", "energy", "environment", "configuration"),
]
FILES = ["config.yaml", "metrics.jsonl", "validation.jsonl", "events.jsonl", "environment.json"]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sections(self) -> list[str | None]:
        return [value for name, value in self.attributes if name == "id"]


def a_crash(number: int, message: str) -> Round:
    return Round(
        number,
        "77",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:05:00+00:00",
        ("node1", HOSTILE.replace("\ud800", "")),
        Outcome(Cause.CRASH, 1, 0, 20, 10, RankFailure(3, "node2", 1, message)),
        Decision(Action.RESTART, f"crash after step 20; rank 3 ended first: {message}"),
    )


def test_page_has_every_section_and_refers_to_nothing(tmp_path: Path) -> None:
    place, _ = write_report(write_run(tmp_path / "run", steps=300))
    assert place == tmp_path / "run" / "report.html"
    page = Page(place)
    assert page.sections == SECTIONS
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset", "action", "style")]
    source = place.read_text()
    assert "url(" not in source and "@import" not in source and "http://" not in source


def test_numbers_are_those_of_the_records(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=300, languages=("ca", "en", "ga"))
    numbers = report_numbers(read_run(run))
    records = [step_values(step) for step in range(1, 301)]
    losses = [record["loss"] for record in records]
    loss = numbers["steps"]["metrics"]["loss"]
    assert (loss["first"], loss["last"], loss["low"], loss["high"]) == (
        losses[0],
        losses[-1],
        min(losses),
        max(losses),
    )
    assert (numbers["steps"]["last"], numbers["steps"]["tokens"]) == (300, 300 * 4096)
    assert numbers["steps"]["seconds"]["step"] == pytest.approx(600.0)
    assert numbers["steps"]["seconds_between_steps"] == pytest.approx(
        {"validation": 150.0, "checkpoint": 75.0, "callbacks": 75.0}
    )
    bits = {entry["language"]: entry for entry in numbers["bits_per_byte"]}
    assert (bits["en"]["first"], bits["en"]["last"]) == (1.0 + 1.1, 1.0 + 1.1 / 4)
    assert [name for name in bits if name not in ("macro", "micro")] == ["ga", "en", "ca"]  # by gain
    assert {entry["source"]: entry["tokens"] for entry in numbers["ledger"]["sources"]} == dict.fromkeys(
        ("ca", "en", "ga"), 300 * 4096 // 3
    )
    parts = {part["name"]: part["seconds"] for part in numbers["time"]["parts"]}
    assert numbers["time"]["seconds"] == pytest.approx(sum(parts.values())) == 900.0
    energy = numbers["energy"]
    assert energy["kilowatt_hours"] == pytest.approx(4 * 900 / 3600 * 0.7)
    assert "4 devices x 0.25 h x 700 W" in energy["text"]
    text = Page(write_report(run)[0]).text
    for shown in (f"{losses[-1]:.4f}", "1.2750", "of 300 steps (100.0 %)", "finished", "not measured"):
        assert shown in text


def test_the_power_that_a_profile_names_counts_for_the_energy(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=300)
    profile = load_profile("generic")
    place = RunDirectory(run).launches / "0001" / "profile.yaml"
    place.parent.mkdir(parents=True)
    named = profile.model_copy(update={"node": profile.node.model_copy(update={"gpu_watts": 500.0})})
    place.write_text(yaml.safe_dump(named.model_dump(mode="json")))
    assert load_profile(str(place)) == named
    assert read_run(run).energy.kilowatt_hours == pytest.approx(4 * 900 / 3600 * 0.5)


def test_texts_from_elsewhere_stay_texts(tmp_path: Path) -> None:
    name = HOSTILE.replace("\ud800", "").replace("\x00", "").replace("/", "")
    events = [
        at(0, "start"),
        at(1, "failure", rank=1, error=HOSTILE.replace("\ud800", "")),
        at(2, "change", key=name, before=1, now=2),
        at(3, name, host=name, **{name: [name, {name: name}]}),
        at(4, "stop", step=3, reason=name),
    ]
    run = write_run(tmp_path / name, steps=30, languages=(name, "ca"), events=events)
    RoundBook(run).append(a_crash(1, name))
    environment = json.loads(RunDirectory(run).environment.read_text())
    environment |= {
        "hosts": [name],
        "command": [name],
        "platform": name,
        "packages": {name: name},
        "slurm": {name: name},
    }
    write_json(RunDirectory(run).environment, environment)
    append_json_lines(RunDirectory(run).metrics, [{**step_values(31), name: 1.0, "mine": {name: 2.0}}])
    with RunDirectory(run).events.open("a") as stream:
        stream.write(json.dumps(at(9, "failure", error=HOSTILE)) + "\n")
    page = Page(write_report(run)[0])
    assert page.sections == SECTIONS
    assert "script" not in page.tags
    assert "alert(" in page.text
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in page.text)


def test_size_does_not_grow_with_the_run(tmp_path: Path) -> None:
    languages = [f"l{number}" for number in range(36)]
    events = [at(0, "start")]
    for number in range(250):
        events += [
            at(10 * number, "failure", what="checkpoint", step=number, error="disk full " * 50),
            at(10 * number + 5, "skip", step=number, reason="spike"),
        ]
    sizes = []
    for steps in (3000, 12000):
        run = write_run(
            tmp_path / str(steps), steps=steps, languages=languages, validate_every=20, events=events
        )
        sizes.append(write_report(run)[0].stat().st_size)
    assert max(sizes) < 500_000
    assert sizes[1] < 1.2 * sizes[0]


DAMAGES = {
    "missing": None,
    "empty": b"",
    "torn": b'{"step": 1, "loss": 2.0}\n{"time": "2026-01-01T00:00:00", "event": "start"}\n{"step": 2, "lo',
    "binary": bytes(range(256)) * 20,
    "of another kind": b'[1, 2]\n"x"\n3\nnull\n{}\n',
    "of other types": (
        b'{"step": 1, "loss": "low", "tokens": [], "seconds": 3, "languages": [1], "time": 7, "event": "start"}\n'
        b'{"step": null, "event": null}\n{"step": 2, "loss": NaN, "lr": 1e999, "tokens": 1'
        + b"0"
        * 400
        + b', "event": "end", "exit_code": "x", "time": "yesterday"}\n'
        b'{"step": "3", "language": 5, "loss": 1, "perplexity": 1, "bits_per_byte": "x", "tokens": 1}\n'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", [*FILES, "rounds.jsonl", "control/job", "blend.lock.yaml", "launch/0001/profile.yaml"]
)
def test_a_damaged_run_has_a_whole_page(tmp_path: Path, name: str, damage: str) -> None:
    run = write_run(tmp_path / "run", steps=20)
    contents = DAMAGES[damage]
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).unlink(missing_ok=True)
    if contents is not None:
        (run / name).write_bytes(contents)
    place, facts = write_report(run)
    assert Page(place).sections == SECTIONS
    json.dumps(report_numbers(facts), allow_nan=False)
    if contents is None and name in FILES and name != "validation.jsonl":
        assert any(note.startswith(name) for note in facts.notes)


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=20)
    RunDirectory(run).validation.unlink()
    RunDirectory(run).validation.mkdir()
    place, facts = write_report(run)
    assert Page(place).sections == SECTIONS
    assert any(str(RunDirectory(run).validation) in note for note in facts.notes)


def test_states_before_the_first_step_while_it_runs_and_after_a_crash(tmp_path: Path) -> None:
    fresh = write_run(tmp_path / "fresh", steps=0, events=[])
    assert "never started" in Page(write_report(fresh)[0]).text
    failed = write_run(tmp_path / "failed", steps=20, events=[at(0, "start"), at(9, "failure", error="no")])
    assert "failed" in Page(write_report(failed)[0]).text
    alive = write_run(tmp_path / "alive", steps=20, events=[at(0, "start")], overrides=["training.steps=100"])
    write_json(RunDirectory(alive).owner, OwnerRecord.of_this_process().to_json())
    text = Page(write_report(alive)[0]).text
    assert "running" in text and "left at this pace" in text
    with pytest.raises(NoRun):
        write_report(tmp_path)


def test_nothing_but_the_page_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=20)

    def seen() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in run.rglob("*")
            if path.is_file()
        }

    before = seen()
    write_report(run, tmp_path / "elsewhere" / "page.html")
    assert seen() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=re.escape(str(tmp_path / "file"))):
        write_report(run, tmp_path / "file" / "page.html")


def test_the_end_of_a_run_survives_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report_in_time(tmp_path)  # no run there
    assert "no run here" in capsys.readouterr().err
    run = write_run(tmp_path / "run", steps=20)
    monkeypatch.setattr("megatron_salamandra.report.writing.write_report", lambda run: time.sleep(30))
    started = time.monotonic()
    write_report_in_time(run, seconds=0.1)
    assert time.monotonic() - started < 20
    assert "took more than" in capsys.readouterr().err
    assert not RunDirectory(run).report.exists()


def test_the_room_imports_no_torch_and_the_command_gives_its_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=20)
    program = (
        "import sys; from megatron_salamandra.cli import main; "
        "code = main(['report', '--json', sys.argv[1]]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["steps"]["last"] == 20
    assert not RunDirectory(run).report.exists()
    done = subprocess.run([sys.executable, "-m", "megatron_salamandra.report", str(run)], check=True)
    assert RunDirectory(run).report.is_file()
